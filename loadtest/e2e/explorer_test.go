package e2e

import (
	"net/http"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"

	"github.com/dotring/dotring/loadtest/localcluster"
)

// TestExplorer tries an operation in the explorer of the API, which asks nobody but its gateway for anything.
func TestExplorer(t *testing.T) {
	c := start(t, localcluster.Config{Nodes: 3, Gateways: 1})
	b, cl, origin := open(t, c), newClient(t, c.Gateways[0]), c.URL(c.Gateways[0])
	b.run(chromedp.Navigate(origin + "/docs#putValue"))
	b.until(`document.querySelector('#putValue form button') !== null && document.querySelectorAll('details[id]').length > 15`)
	b.run(chromedp.Evaluate[chromedp.Void](`document.querySelector('#putValue input[name=key]').value = 'a/b +ä';
		document.querySelector('#putValue textarea').value = '<b id=bold>tried</b>'; document.querySelector('#putValue form').requestSubmit()`))
	b.until(`document.querySelector('#putValue form > pre').textContent.includes('HTTP 200')`)
	a := cl.want(t, http.StatusOK, "GET", "a/b +ä", "", nil)
	if string(a.body) != "<b id=bold>tried</b>" {
		t.Errorf("stored %s", a.body)
	}
	b.run(chromedp.Evaluate[chromedp.Void](`document.getElementById('getValue').open = true`))
	b.until(`document.querySelector('#getValue form') !== null`)
	b.run(chromedp.Evaluate[chromedp.Void](`document.querySelector('#getValue input[name=key]').value = 'a/b +ä'; document.querySelector('#getValue form').requestSubmit()`))
	b.until(`document.querySelector('#getValue form > pre').textContent.includes('<b id=bold>tried</b>') && document.getElementById('bold') === null`)
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, url := range b.asked {
		if !strings.HasPrefix(url, origin+"/") {
			t.Errorf("the page asked for %s", url)
		}
	}
	if len(b.asked) < 8 || len(b.faults) > 0 {
		t.Errorf("%d requests were seen, and the page threw %q", len(b.asked), b.faults)
	}
}
