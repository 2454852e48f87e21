// Package scale runs hundreds of storage nodes and gateways in one process, over networks in memory and in time that does not pass while
// anybody is at work, so that what is measured is the protocol and not the machine.
package scale
