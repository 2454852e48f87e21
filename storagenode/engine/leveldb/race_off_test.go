//go:build !race

package leveldb

// raceDetector says that tests run under the race detector, about ten times slower.
const raceDetector = false
