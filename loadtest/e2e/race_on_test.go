//go:build race

package e2e

// raceEnabled makes the programs under test be built with the race detector too.
const raceEnabled = true
