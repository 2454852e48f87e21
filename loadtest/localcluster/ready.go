package localcluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
)

// errEnded says that a process that should run has ended: waiting is in vain.
var errEnded = errors.New("it has ended")

// Status is what the local cluster asks a gateway's /v1/cluster/status for.
type Status struct {
	Cluster  string   `json:"cluster"`
	Settled  Layout   `json:"settled"`
	Newest   Layout   `json:"newest"`
	Changing bool     `json:"changing"`
	Members  int      `json:"members"`
	Alive    int      `json:"alive"`
	Replicas int      `json:"replicas"`
	Promise  string   `json:"promise"`
	Warnings []string `json:"warnings"`
}

// Layout names a layout in a Status.
type Layout struct {
	Epoch string `json:"epoch"`
	Hash  string `json:"hash"`
}

// Status asks one gateway.
func (c *Cluster) Status(ctx context.Context, g *Process) (Status, error) {
	var s Status
	body, err := c.get(ctx, c.URL(g)+"/v1/cluster/status")
	if err != nil {
		return s, err
	}
	if err := json.Unmarshal(body, &s); err != nil {
		return s, fmt.Errorf("read status: %w", err)
	}
	return s, nil
}

func (c *Cluster) gatewayReady(ctx context.Context, g *Process, settled int) error {
	if !g.Running() {
		return fmt.Errorf("%w (%v): %s", errEnded, g.Err(), g.LogTail(5))
	}
	if _, err := c.get(ctx, c.URL(g)+"/readyz"); err != nil {
		return err
	}
	if settled == 0 {
		return nil
	}
	s, err := c.Status(ctx, g)
	if err != nil {
		return err
	}
	if s.Changing || s.Members != settled || s.Alive != settled {
		return fmt.Errorf("%d members, %d alive, changing %v; waiting for %d", s.Members, s.Alive, s.Changing, settled)
	}
	return nil
}

func (c *Cluster) get(ctx context.Context, url string) ([]byte, error) {
	return c.send(ctx, http.MethodGet, url, "")
}

func (c *Cluster) send(ctx context.Context, method, url, what string) (body []byte, err error) {
	req, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(what))
	if err != nil {
		return nil, fmt.Errorf("build request: %w", err)
	}
	resp, err := c.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, resp.Body.Close()) }()
	body, err = io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return nil, fmt.Errorf("read answer: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s answers %s: %s", url, resp.Status, body)
	}
	return body, nil
}
