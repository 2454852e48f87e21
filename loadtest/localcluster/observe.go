package localcluster

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
)

// Metric is the sum of a process's metrics whose name and labels begin so; 0 where it has none.
func (c *Cluster) Metric(ctx context.Context, p *Process, name string) (sum float64, err error) {
	body, err := c.get(ctx, "http://"+p.Admin+"/metrics")
	if err != nil {
		return 0, fmt.Errorf("metrics of %s: %w", p.Name, err)
	}
	lines := bufio.NewScanner(bytes.NewReader(body))
	for lines.Scan() {
		if line := lines.Text(); strings.HasPrefix(line, name) {
			v, err := strconv.ParseFloat(line[strings.LastIndexByte(line, ' ')+1:], 64)
			if err != nil {
				return 0, fmt.Errorf("metrics of %s: %s: %w", p.Name, line, err)
			}
			sum += v
		}
	}
	return sum, lines.Err()
}

// Phi is a gateway's suspicion of the node with this id.
func (c *Cluster) Phi(ctx context.Context, gateway *Process, id string) (float64, error) {
	return c.Metric(ctx, gateway, fmt.Sprintf("dotring_gateway_node_phi{node=%q}", id))
}

// NodeIDs asks a gateway for the ids of the cluster's nodes, in the order of Nodes.
func (c *Cluster) NodeIDs(ctx context.Context, gateway *Process) ([]string, error) {
	body, err := c.get(ctx, c.URL(gateway)+"/v1/cluster/nodes")
	if err != nil {
		return nil, err
	}
	var found struct {
		Nodes []struct{ ID, Name string } `json:"nodes"`
	}
	if err := json.Unmarshal(body, &found); err != nil {
		return nil, fmt.Errorf("read nodes: %w", err)
	}
	out := make([]string, len(c.Nodes))
	for i, p := range c.Nodes {
		for _, n := range found.Nodes {
			if n.Name == p.Name {
				out[i] = n.ID
			}
		}
		if out[i] == "" {
			return nil, fmt.Errorf("no node is named %s", p.Name)
		}
	}
	return out, nil
}

// Repair returns when all hints and differences that are in the cluster now are gone, or with ctx.
func (c *Cluster) Repair(ctx context.Context, gateway *Process) error {
	ask := `{"timeout":"1s"}`
	return c.Poll(ctx, func() error {
		body, err := c.send(ctx, http.MethodPost, "http://"+gateway.HTTP+"/v1/cluster:repair", ask)
		if err != nil {
			return err
		}
		var got struct {
			Done    bool
			Token   string
			Waiting []struct{ Node, Kind, Peer string }
		}
		if err := json.Unmarshal(body, &got); err != nil {
			return fmt.Errorf("read the answer of repair: %w", err)
		}
		if got.Done {
			return nil
		}
		ask = fmt.Sprintf(`{"timeout":"1s","token":%q}`, got.Token)
		return fmt.Errorf("still waited for: %v", got.Waiting)
	})
}

// Decommission asks a gateway that a node leaves, and does not wait for it.
func (c *Cluster) Decommission(ctx context.Context, gateway *Process, node string) error {
	_, err := c.send(ctx, http.MethodPost, c.URL(gateway)+"/v1/cluster/nodes/"+node+":decommission", "")
	return err
}
