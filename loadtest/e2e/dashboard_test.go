package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"github.com/dotring/dotring/loadtest/localcluster"
)

// browser is one tab of a headless Chromium.
type browser struct {
	t       *testing.T
	cluster *localcluster.Cluster
	ctx     context.Context
	mu      sync.Mutex
	asked   []string // URLs of all requests
	faults  []string // what the page complained of
}

// open starts a browser, and skips the test where there is none.
func open(t *testing.T, c *localcluster.Cluster) *browser {
	t.Helper()
	program := ""
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if found, err := exec.LookPath(name); err == nil {
			program = found
			break
		}
	}
	if program == "" {
		t.Skip("the dashboard was not tried: no Chromium is installed")
	}
	// Certificates of a local cluster are made for it alone; what is tried here is the page.
	options := append(slices.Clone(chromedp.DefaultExecAllocatorOptions[:]), chromedp.ExecPath(program), chromedp.NoSandbox,
		chromedp.IgnoreCertErrors, chromedp.WindowSize(1200, 900))
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	t.Cleanup(cancel)
	ctx, cancelAllocator := chromedp.NewExecAllocator(ctx, options...)
	t.Cleanup(cancelAllocator)
	b := &browser{t: t, cluster: c}
	ctx, cancelTab := chromedp.NewContext(ctx, chromedp.WithListener(b.hear))
	t.Cleanup(cancelTab)
	b.ctx = ctx
	b.run() // starts it
	if _, err := chromedp.Call(b.ctx, network.Enable, network.EnableParams{}); err != nil {
		t.Fatal(err)
	}
	return b
}

func (b *browser) hear(event any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch e := event.(type) {
	case *network.EventRequestWillBeSent:
		b.asked = append(b.asked, e.Request.URL)
	case *runtime.EventExceptionThrown:
		b.faults = append(b.faults, fmt.Sprintf("%s: %v", e.ExceptionDetails.Text, e.ExceptionDetails.Exception))
	}
}

func (b *browser) run(actions ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	if err := chromedp.Do(b.ctx, actions...); err != nil {
		b.t.Fatal(err)
	}
}

// eval returns what a JavaScript expression is, as JSON.
func (b *browser) eval(expression string) string {
	b.t.Helper()
	out, err := chromedp.Run(b.ctx, chromedp.Evaluate[[]byte]("(async () => { const v = await ("+expression+"); return v === undefined ? null : v })()",
		chromedp.EvalAwaitPromise, chromedp.EvalAsValue))
	if err != nil {
		b.t.Fatalf("%s: %v", expression, err)
	}
	return string(out)
}

// until waits until an expression is true.
func (b *browser) until(expression string) {
	b.t.Helper()
	eventually(b.t, b.cluster, func() error {
		if got := b.eval(expression); got != "true" {
			return fmt.Errorf("%s is %s; the page shows %.600s", expression, got, b.eval("document.body.innerText"))
		}
		return nil
	})
}

func (b *browser) click(selector string) {
	b.t.Helper()
	b.run(chromedp.Click(chromedp.CSS(selector)))
}

// requireOnly fails where anything but origin was asked for something, or the page threw an error.
func (b *browser) requireOnly(origin string) {
	b.t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, url := range b.asked {
		if !strings.HasPrefix(url, origin+"/") {
			b.t.Errorf("the page asked for %s", url)
		}
	}
	if len(b.asked) < 20 {
		b.t.Errorf("only %d requests were seen", len(b.asked))
	}
	for _, fault := range b.faults {
		b.t.Errorf("the page threw %s", fault)
	}
}

// evil is a value, a content type or a key that does something where it is taken for markup.
const evil = `<script>window.ran = 1</script><img src=x onerror="window.ran = 1"><b id="bold">milk</b>`

// conflict makes two siblings of a key.
func conflict(t *testing.T, cl *client, key, one, other string) {
	t.Helper()
	none := cl.want(t, http.StatusNotFound, "GET", key, "", nil).context
	cl.want(t, http.StatusOK, "PUT", key, "", []byte(one), "Kv-Context", none, "Content-Type", "text/plain")
	cl.want(t, http.StatusOK, "PUT", key, "", []byte(other), "Kv-Context", none, "Content-Type", "text/html")
	cl.want(t, http.StatusMultipleChoices, "GET", key, "", nil)
}

// TestDashboard drives the dashboard in a browser: a conflict is resolved by choice and by edit, values stay text, no request
// leaves the origin, and a killed node is shown within three seconds.
func TestDashboard(t *testing.T) {
	c := start(t, localcluster.Config{Nodes: 3, Gateways: 1, Zones: []string{"a", "b", "c"}})
	b, cl, origin := open(t, c), newClient(t, c.Gateways[0]), c.URL(c.Gateways[0])

	b.run(chromedp.Navigate(origin + "/ui/"))
	b.until(`document.querySelectorAll('#nodes tr[data-state="alive"]').length === 3`)
	b.until(`document.querySelectorAll('#ring path.slice').length === 3 && document.querySelectorAll('#ring path.zone').length === 3`)
	b.until(`document.getElementById('promise').textContent.startsWith('All 3 members work')`)

	hotKeyInBrowser(t, b, cl)
	clocksInBrowser(t, b)
	resolveInBrowser(t, b, cl)
	b.run(chromedp.KeyEvent(kb.Escape), chromedp.Evaluate[chromedp.Void](`document.activeElement.blur()`), chromedp.KeyEvent("3"))
	b.until(`!document.getElementById('view-work').hidden && document.getElementById('tasks').innerText.includes('comparisons between owners')`)
	b.run(chromedp.KeyEvent("/"))
	b.until(`document.activeElement.id === 'key'`)
	for _, view := range []string{"overview", "keys", "work"} {
		b.run(chromedp.EmulateViewport(360, 740), chromedp.Evaluate[chromedp.Void](`location.hash = '#`+view+`'`))
		b.until(`!document.getElementById('view-` + view + `').hidden && document.documentElement.scrollWidth <= 360`)
	}

	b.run(chromedp.EmulateViewport(1200, 900), chromedp.Evaluate[chromedp.Void](`location.hash = '#overview'`))
	b.until(`document.querySelectorAll('#nodes tr[data-state="alive"]').length === 3`)
	ran, killed := pulseOf(t), time.Now()
	if err := c.Nodes[1].Kill(); err != nil {
		t.Fatal(err)
	}
	b.until(`document.querySelectorAll('#nodes tr[data-state="alive"]').length === 2 &&
		['failed', 'unreachable', 'no answer'].includes([...document.querySelectorAll('#nodes tr')].find((r) => r.cells[0].textContent === 'node2').dataset.state)`)
	took := ran.Since(killed)
	t.Logf("the killed node was shown after %v", took)
	if took > 3*time.Second {
		t.Errorf("the killed node was shown after %v, more than 3s", took)
	}
	b.until(`document.querySelectorAll('#ring path.slice.down').length === 1 && document.getElementById('fault').hidden`)
	b.requireOnly(origin)
	policyHolds(t, b, origin)
}

// hotKeyInBrowser asks for one key more than for others: within ten seconds it is named, as text, and leads to its inspection.
func hotKeyInBrowser(t *testing.T, b *browser, cl *client) {
	t.Helper()
	const hot = `<i id="hot-ran">` + "user/42"
	ran, began := pulseOf(t), time.Now()
	for i := range 60 {
		cl.want(t, http.StatusNotFound, "GET", fmt.Sprintf("cool%d", i), "", nil)
		cl.want(t, http.StatusNotFound, "GET", hot, "", nil)
	}
	b.until(`document.querySelector('#hot tbody tr')?.cells[0].textContent === '` + hot + `' && document.querySelector('#hot tbody .state.warn') !== null`)
	if took := ran.Since(began); took > 10*time.Second {
		t.Errorf("the hot key was named after %v", took)
	}
	// Rates are those of the last seconds, so requests go on while the page is looked at.
	ctx, stop := context.WithCancel(t.Context())
	var reading sync.WaitGroup
	reading.Go(func() {
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for i := 0; ; i++ {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			if _, err := cl.do("GET", fmt.Sprintf("cool%d", i%60), "", nil); err != nil {
				t.Errorf("read while the page is looked at: %v", err)
				return
			}
		}
	})
	defer reading.Wait()
	defer stop()
	b.until(`(() => { const row = document.querySelector('#traffic tr[data-op=get]');
		return Number(row.cells[1].textContent) > 1 && row.cells[4].textContent.endsWith(' ms') && row.cells[5].textContent.endsWith(' ms') &&
			row.cells[2].querySelector('polyline').getAttribute('points').split(' ').length > 1 &&
			[...document.querySelectorAll('#nodes tbody tr')].every((r) => r.cells[4].textContent !== '0/s') &&
			document.getElementById('facts').textContent.includes('converged, 3 agree') })()`)
	stop()
	reading.Wait()
	b.click("#hot tbody a")
	b.until(`document.getElementById('key').value === '` + hot + `' && !document.getElementById('view-keys').hidden`)
	if got := b.eval(`document.querySelectorAll('#hot-ran').length`); got != "0" {
		t.Errorf("the key became part of the page")
	}
	b.run(chromedp.Evaluate[chromedp.Void](`location.hash = '#overview'`))
}

// clocksInBrowser tells the page of three replicas that differ: x:1 and x:2 are superseded by what others have seen, y:1 is
// not, and x:3 was superseded within the clock of its replica.
func clocksInBrowser(t *testing.T, b *browser) {
	t.Helper()
	got := b.eval(`Promise.all([import('/ui/causal.js'), import('/ui/graph.js')]).then(([causal, graph]) => {
		const replica = (name, clock, ...siblings) => ({ name, clock: Object.entries(clock).map(([actor, counter]) => ({ actor, counter })),
			siblings: siblings.map(([actor, counter]) => ({ actor, counter, tombstone: actor === 'y' })) });
		const all = [replica('a', { x: '2', y: '1' }, ['x', '2'], ['y', '1']), replica('b', { x: '1' }, ['x', '1']), replica('c', { x: '3' })];
		const dots = causal.merge(all), clocks = all.map(causal.clockOf), drawn = graph.graph(all, dots, (actor) => actor);
		return [[...dots.values()].map((d) => d.name + (d.live ? ' live' : ' stale')), all.map((r) => causal.standing(r, dots)),
			causal.compare(clocks[0], clocks[2]), causal.compare(clocks[1], clocks[0]), causal.compare(clocks[2], clocks[1]), causal.compare(clocks[0], clocks[0]),
			causal.versions([...all, { ...all[0], name: 'd' }]).map((v) => v.names.join('+')),
			[...drawn.querySelectorAll('.event')].map((e) => e.getAttribute('class')),
			[...drawn.querySelectorAll('polyline')].map((p) => p.getAttribute('points').split(' ').map((at) => Math.round((at.split(',')[0] - 120) / 84)).join())];
	})`)
	want := `[["x:2 stale","y:1 live","x:1 stale"],["holds 1 superseded","lacks 1, holds 1 superseded","lacks 1"],` +
		`"concurrent","before","after","equal",["b","a+d","c"],["event stale value","event stale value","event gone","event live deletion"],` +
		`["1,1,0,0,0","2,2,1,1,1","3,3,0,0,0"]]`
	if got != want {
		t.Errorf("clocks: %s, want %s", got, want)
	}
}

// resolveInBrowser looks keys up, and resolves their conflicts in each of the ways there are.
func resolveInBrowser(t *testing.T, b *browser, cl *client) {
	t.Helper()
	conflict(t, cl, "cart", "apples", evil)
	b.run(chromedp.Evaluate[chromedp.Void](`location.hash = '#keys'`), chromedp.SendKeys(chromedp.CSS("#key"), "cart"+kb.Enter))
	b.until(`document.querySelectorAll('#inspection button.keep').length === 2`)
	shown := b.eval(`[...document.querySelectorAll('#inspection pre')].map((p) => p.textContent).sort()`)
	if want, err := json.Marshal([]string{evil, "apples"}); err != nil || !sameJSON(shown, string(want)) {
		t.Errorf("siblings are shown as %s", shown)
	}
	if got := b.eval(`[document.querySelectorAll('#replicas tbody tr').length, document.querySelectorAll('.graph .event.live').length, document.querySelectorAll('#clocks tbody tr').length]`); got != "[3,2,1]" {
		t.Errorf("replicas, live writes in the graph, actors: %s", got)
	}
	b.run(chromedp.Evaluate[chromedp.Void](`[...document.querySelectorAll('.card')].find((c) => c.textContent.includes('<script>')).querySelector('.keep').click()`))
	b.until(`document.getElementById('said').textContent.startsWith('Resolved.') && document.activeElement.id === 'said' && document.querySelectorAll('#inspection pre').length === 1`)
	if a := cl.want(t, http.StatusOK, "GET", "cart", "", nil); string(a.body) != evil || a.header.Get("Content-Type") != "text/html" {
		t.Errorf("the chosen value is %q of %s", a.body, a.header.Get("Content-Type"))
	}

	key := evil + "/.."
	conflict(t, cl, key, "one", "two")
	b.run(chromedp.SetValue(chromedp.CSS("#key"), key), chromedp.Click(chromedp.CSS("#lookup button")))
	b.until(`document.querySelectorAll('#inspection button.edit').length === 2`)
	b.click("#inspection button.edit")
	b.run(chromedp.SetValue(chromedp.CSS("#new-value"), "one and two"))
	b.click("#save")
	b.until(`document.getElementById('said').textContent.startsWith('Written.')`)
	if a := cl.want(t, http.StatusOK, "GET", key, "", nil); string(a.body) != "one and two" {
		t.Errorf("the edited value is %q", a.body)
	}
	b.click("#delete-key")
	b.click("#delete-dialog button[value=delete]")
	b.until(`document.getElementById('said').textContent.startsWith('Deleted.')`)
	cl.want(t, http.StatusNotFound, "GET", key, "", nil)
	if got := b.eval(`[typeof window.ran, document.querySelectorAll('main img, main script, #bold').length]`); got != `["undefined",0]` {
		t.Errorf("a value ran, or became part of the page: %s", got)
	}
}

func sameJSON(a, b string) bool {
	var x, y []string
	return json.Unmarshal([]byte(a), &x) == nil && json.Unmarshal([]byte(b), &y) == nil && slices.Equal(x, y)
}

// policyHolds tries what the page itself never does: to run text, and to ask another origin. Then it opens the value itself.
func policyHolds(t *testing.T, b *browser, origin string) {
	t.Helper()
	var hits atomic.Int64
	outside := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { hits.Add(1) }))
	defer outside.Close()
	for name, code := range map[string]string{
		"fetch":  `fetch('` + outside.URL + `', { mode: 'no-cors' }).then(() => 'done', () => 'refused')`,
		"image":  `new Promise((r) => { const i = new Image(); i.onload = i.onerror = (e) => r(e.type === 'load' ? 'done' : 'refused'); i.src = '` + outside.URL + `' })`,
		"markup": `(() => { try { document.body.innerHTML = '<b>x</b>'; return 'done' } catch { return 'refused' } })()`,
		"script": `new Promise((r) => { try { const s = document.createElement('script'); s.onload = () => r('done'); s.onerror = () => r('refused'); s.src = '` + outside.URL + `'; document.body.append(s) } catch { r('refused') } })`,
	} {
		if got := b.eval(code); got != `"refused"` {
			t.Errorf("%s: %s", name, got)
		}
	}
	if n := hits.Load(); n != 0 {
		t.Errorf("another origin got %d requests", n)
	}
	b.run(chromedp.Navigate(origin + "/v1/kv/cart"))
	if got := b.eval(`[typeof window.ran, document.body.innerText]`); got != `["undefined","milk"]` {
		t.Errorf("the value, opened by itself: %s", got)
	}
}

// TestDashboardAsksForAToken opens the dashboard of a cluster with access rules, and then kills the gateway.
func TestDashboardAsksForAToken(t *testing.T) {
	data := t.TempDir()
	c := start(t, localcluster.Config{Nodes: 3, Gateways: 1, Secure: true, Data: data})
	secrets, err := localcluster.At(data)
	if err != nil {
		t.Fatal(err)
	}
	token, err := os.ReadFile(filepath.Clean(secrets.Admin))
	if err != nil {
		t.Fatal(err)
	}
	b, origin := open(t, c), c.URL(c.Gateways[0])
	b.run(chromedp.Navigate(origin + "/ui/"))
	b.until(`document.getElementById('token-dialog').open && document.getElementById('nodes').tBodies[0].rows.length === 0`)
	b.run(chromedp.SendKeys(chromedp.CSS("#token"), strings.TrimSpace(string(token))+kb.Enter))
	b.until(`document.querySelectorAll('#nodes tr[data-state="alive"]').length === 3`)
	if got := b.eval(`[sessionStorage.length, localStorage.length, document.cookie, document.getElementById('token').value]`); got != `[1,0,"",""]` {
		t.Errorf("the token is kept elsewhere than in the session, or not at all: %s", got)
	}
	b.click("#sign")
	b.click("#token-form button[value=forget]")
	b.until(`document.getElementById('fault').textContent === 'The gateway asks for a token.' && sessionStorage.length === 0`)
	if err := c.Gateways[0].Kill(); err != nil {
		t.Fatal(err)
	}
	b.until(`document.getElementById('fault').textContent.startsWith('The gateway does not answer.')`)
}
