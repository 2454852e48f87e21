module github.com/dotring/dotring/loadtest

go 1.26.0

require github.com/alecthomas/kong v1.17.0

replace github.com/dotring/dotring/proto => ../proto

replace github.com/dotring/dotring/ringsvc => ../ringsvc

replace github.com/dotring/dotring/storagenode => ../storagenode

replace github.com/dotring/dotring/gateway => ../gateway
