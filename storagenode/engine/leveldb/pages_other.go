//go:build !linux

package leveldb

// dropPages does nothing: reads may come from the system's memory.
func dropPages(pageCached) error { return nil }
