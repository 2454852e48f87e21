// Package ring decides which nodes hold which keys, and how that decision changes without losing a write: slots, tokens, preference
// lists, layouts named by epoch and hash, and the protocol that moves a cluster from one layout to the next.
//
// Everything here is a plain value: no goroutine, socket, clock, disk or source of randomness. Nodes and gateways hold a View each,
// exchange views, merge them, and do what NextStep tells them. FORMAT.md beside this file describes the bytes.
package ring
