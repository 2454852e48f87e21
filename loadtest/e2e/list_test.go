package e2e

import (
	"encoding/json"
	"fmt"
	"net/url"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/dotring/dotring/loadtest/localcluster"
)

// Keys are listed whole, by prefix, page by page, without what was deleted; also while a node is away, and by the command
// line tool.
func TestListsKeys(t *testing.T) {
	c := start(t, localcluster.Config{Nodes: 5, Gateways: 1})
	cl := newClient(t, c.Gateways[0])
	var want []string
	for i := range 400 {
		key := fmt.Sprintf("user/%d/ä\n", i)
		cl.want(t, 200, "PUT", key, "", []byte("v"))
		cl.want(t, 200, "PUT", fmt.Sprintf("other/%d", i), "", []byte("v"))
		if i%4 == 0 {
			cl.want(t, 200, "DELETE", key, "", nil)
			continue
		}
		want = append(want, key)
	}
	slices.Sort(want)
	list := func(limit int) (keys []string, pages int) {
		t.Helper()
		for cursor := ""; ; pages++ {
			q := url.Values{"prefix": {"user/"}, "limit": {fmt.Sprint(limit)}, "timeout": {"20s"}}
			if cursor != "" {
				q.Set("cursor", cursor)
			}
			a, err := cl.raw("GET", "/v1/kv", q.Encode(), nil)
			if err != nil || a.status != 200 {
				t.Fatalf("page %d: %v, %v", pages, a, err)
			}
			var page struct {
				Keys   []struct{ Key string }
				Cursor string
			}
			if err := json.Unmarshal(a.body, &page); err != nil || len(page.Keys) > limit {
				t.Fatalf("%d keys, %v", len(page.Keys), err)
			}
			for _, k := range page.Keys {
				keys = append(keys, k.Key)
			}
			if cursor = page.Cursor; cursor == "" {
				slices.Sort(keys)
				return keys, pages + 1
			}
		}
	}
	if got, pages := list(17); !slices.Equal(got, want) || pages < len(want)/17 {
		t.Errorf("%d keys on %d pages, want %d", len(got), pages, len(want))
	}
	if err := c.Nodes[2].Kill(); err != nil {
		t.Fatal(err)
	}
	if got, _ := list(1000); !slices.Equal(got, want) {
		t.Errorf("with a node away: %d keys, want %d", len(got), len(want))
	}
	out, err := exec.Command(program("dotringctl"), "--gateway", "http://"+c.Gateways[0].HTTP, "--timeout", "20s", "list", "user/", "-o", "json").Output()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for line := range strings.Lines(string(out)) {
		var k struct{ Key string }
		if err := json.Unmarshal([]byte(line), &k); err != nil {
			t.Fatal(err)
		}
		got = append(got, k.Key)
	}
	if slices.Sort(got); !slices.Equal(got, want) {
		t.Errorf("dotringctl lists %d keys, want %d", len(got), len(want))
	}
}
