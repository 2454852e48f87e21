package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/dotring/dotring/loadtest/localcluster"
)

// stopTimeout is how long Ctrl-C waits for each tier before it kills.
const stopTimeout = 10 * time.Second

// readyTimeout is how long the cluster may take to form.
const readyTimeout = 30 * time.Second

type upCommand struct {
	Nodes    int      `default:"3" help:"How many storage nodes (1 to 99)."`
	Gateways int      `default:"2" help:"How many gateways (1 to 99)."`
	Data     string   `default:".data" help:"Folder for data and logs, kept from run to run."`
	Bin      string   `default:"bin" help:"Folder of the programs."`
	Zones    []string `help:"Zones, dealt out to the nodes in turn."`
	Secure   bool     `help:"With TLS, access rules and encrypted gossip; the files are made in the data folder."`
}

// Run starts the cluster, says what to try, and waits for ctx to end; then it stops everything.
func (u *upCommand) Run(ctx context.Context) error {
	cluster, err := u.prepare()
	if err != nil {
		return err
	}
	began := time.Now()
	if err := cluster.Start(); err != nil {
		return errors.Join(err, cluster.Stop(stopTimeout))
	}
	watched := watchExits(ctx, cluster)
	ready, cancel := context.WithTimeout(ctx, readyTimeout)
	err = cluster.WaitReady(ready, u.Nodes)
	cancel()
	if err == nil {
		u.welcome(cluster, time.Since(began))
		<-ctx.Done()
	}
	if ctx.Err() != nil {
		err = nil // Ctrl-C, before or after the cluster was ready
		fmt.Println("\nstopping")
	}
	err = errors.Join(err, cluster.Stop(stopTimeout))
	watched.Wait()
	if err == nil {
		fmt.Printf("stopped; the data stays in %s (make clean-data deletes it)\n", u.Data)
	}
	return err
}

func (u *upCommand) prepare() (*localcluster.Cluster, error) {
	bin, err := filepath.Abs(u.Bin)
	if err != nil {
		return nil, fmt.Errorf("find programs: %w", err)
	}
	if u.Gateways < 1 {
		return nil, fmt.Errorf("gateways: %d, at least 1 is needed to reach the cluster", u.Gateways)
	}
	cluster, err := localcluster.New(localcluster.Config{Bin: bin, Data: u.Data, Nodes: u.Nodes, Gateways: u.Gateways, Zones: u.Zones, Secure: u.Secure})
	if err != nil {
		return nil, err
	}
	if err := cluster.CheckPorts(); err != nil {
		return nil, fmt.Errorf("%w\nanother cluster may be running: stop it with Ctrl-C where it was started, or see who listens with `ss -ltnp`", err)
	}
	return cluster, nil
}

// watchExits says which process ended by itself, and how to start it again. The cluster goes on without it.
func watchExits(ctx context.Context, cluster *localcluster.Cluster) *sync.WaitGroup {
	var wg sync.WaitGroup
	for _, p := range cluster.All() {
		wg.Go(func() {
			<-p.Exited()
			if ctx.Err() != nil {
				return
			}
			fmt.Fprintf(os.Stderr, "%s %s ended (%v); log: %s; start it again with:\n  %s\n", p.Kind, p.Name, p.Err(), p.LogFile(), p.Command())
		})
	}
	return &wg
}

func (u *upCommand) welcome(c *localcluster.Cluster, took time.Duration) {
	fmt.Printf("dotring is up after %.1f s: %d storage nodes, %d gateways\n\n", took.Seconds(), len(c.Nodes), len(c.Gateways))
	for _, p := range c.Nodes {
		fmt.Printf("  %-9s gRPC %s  gossip %s  admin http://%s/metrics\n", p.Name, p.GRPC, p.Gossip, p.Admin)
	}
	for _, p := range c.Gateways {
		fmt.Printf("  %-9s %s  gRPC %s  admin http://%s/metrics\n", p.Name, c.URL(p), p.GRPC, p.Admin)
	}
	first, last := c.URL(c.Gateways[0]), c.URL(c.Gateways[len(c.Gateways)-1])
	curl := "curl -i"
	if u.Secure {
		files, err := localcluster.At(u.Data)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return
		}
		fmt.Printf("\nFirst:\n  export CURL_CA_BUNDLE=%s DOTRING_CA=%[1]s DOTRING_TOKEN=$(cat %[2]s)\n", files.Authority, files.Admin)
		curl += " -H \"Authorization: Bearer $DOTRING_TOKEN\""
	}
	fmt.Printf("\nTry:\n  %s -X PUT --data-binary 'hello' %s/v1/kv/greeting\n  %[1]s %[3]s/v1/kv/greeting\n"+
		"  bin/dotringctl --gateway %[2]s status\n  bin/dotringctl --gateway %[2]s key greeting\n\nCtrl-C stops everything.\n",
		curl, first, last)
}
