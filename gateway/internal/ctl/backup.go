package ctl

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/dotring/dotring/gateway/backup"
	clusterv1 "github.com/dotring/dotring/proto/gen/cluster/v1"
)

const (
	// bulkAtOnce is how many requests of a backup or restore are under way at once.
	bulkAtOnce = 16
	// restorers is how many pieces of a backup are on their way at once, restorePiece their size.
	restorers    = 4
	restorePiece = 1 << 20
	// bulkTries is how often a piece is tried, with pauses that double from bulkPause to bulkPauseMost between.
	bulkTries     = 8
	bulkPause     = 100 * time.Millisecond
	bulkPauseMost = 5 * time.Second
	// pieceTime is how long one piece may take.
	pieceTime = time.Minute
)

type backupCommand struct {
	Dir    string `arg:"" help:"Directory to write into, new or empty; with --verify, one that was written." type:"path" complete:"directory"`
	Verify bool   `help:"Read a backup that is there, and check every byte."`
}

// Help is shown by --help.
func (backupCommand) Help() string {
	return `Every node is read as it was at one moment, without stopping writes, and written into DIR here, a file for what it holds ` +
		`and one for what it keeps for others. A backup is complete if everything that was acknowledged before it began must be in it: ` +
		`fewer nodes are missing than a write is acknowledged by, and the layout was settled. Otherwise it says why, and exits with 1. ` +
		`DIR/SHA256SUMS has the sums of all files, as sha256sum writes them. It needs an admin token where tokens are in use.

` + examples("dotringctl backup /backups/monday", "dotringctl backup --verify /backups/monday", "cd /backups/monday && sha256sum -c SHA256SUMS")
}

// Run writes or verifies a backup.
func (c *backupCommand) Run(ctx context.Context, s *session) error {
	if c.Verify {
		m, err := backup.Verify(c.Dir)
		if err != nil {
			return &failure{code: ExitError, title: "the backup is not whole", detail: err.Error()}
		}
		return s.tellBackup(c.Dir, m)
	}
	if err := emptyDir(c.Dir); err != nil {
		return err
	}
	m, err := s.backup(ctx, c.Dir)
	if err != nil {
		return err
	}
	if err := backup.Finish(c.Dir, m); err != nil {
		return fmt.Errorf("finish the backup: %w", err)
	}
	return s.tellBackup(c.Dir, m)
}

// emptyDir makes the directory, which may be there but must be empty.
func emptyDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	files, err := os.ReadDir(dir)
	if err == nil && len(files) > 0 {
		err = &failure{code: ExitError, title: dir + " is not empty", detail: "a backup is written into a directory of its own"}
	}
	return err
}

// get reads one page of the cluster.
func (s *session) get(ctx context.Context, path string, m proto.Message) error {
	a, err := s.client.do(ctx, call{method: http.MethodGet, path: path})
	if err != nil {
		return failed(err, "")
	}
	if a.status != http.StatusOK {
		return refused(a, "")
	}
	if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(a.body, m); err != nil {
		return &failure{code: ExitError, status: a.status, title: "the answer cannot be read", detail: excerpt(a), hint: hintNotAGateway}
	}
	return nil
}

// settledName is how heads of backups name a layout.
func settledName(l *clusterv1.LayoutRef) string {
	return fmt.Sprintf("%d-%s", l.GetEpoch(), l.GetHash())
}

// nodeCopy is one node on its way into a backup.
type nodeCopy struct {
	node   backup.Node
	member bool
	head   backup.Head // of the records
}

// backup reads all nodes into dir: first what each keeps for others, since that moves to records alone, then their records.
func (s *session) backup(ctx context.Context, dir string) (backup.Manifest, error) {
	var st clusterv1.GetStatusResponse
	var before, after clusterv1.GetLayoutResponse
	var list clusterv1.ListNodesResponse
	if err := errors.Join(s.get(ctx, "/v1/cluster/status", &st), s.get(ctx, "/v1/cluster/layout", &before), s.get(ctx, "/v1/cluster/nodes", &list)); err != nil {
		return backup.Manifest{}, err
	}
	if len(before.GetLayouts()) == 0 {
		return backup.Manifest{}, &failure{code: ExitError, title: "the gateway knows no cluster yet"}
	}
	began := time.Now()
	copies := copiesOf(&before, &list)
	facts := backup.Facts{Before: settledName(before.GetLayouts()[0].GetRef()), MinWrite: int(before.GetLayouts()[0].GetMinWriteQuorum()),
		Changing: len(before.GetLayouts()) > 1}
	s.readPart(ctx, dir, backup.Hints, copies)
	fixed := s.readPart(ctx, dir, backup.Records, copies)
	if err := ctx.Err(); err != nil {
		return backup.Manifest{}, failed(&connError{err: context.Canceled}, "")
	}
	if err := s.get(ctx, "/v1/cluster/layout", &after); err != nil {
		return backup.Manifest{}, err
	}
	facts.After, facts.Spread = settledName(after.GetLayouts()[0].GetRef()), fixed.Sub(began)
	facts.Changing = facts.Changing || len(after.GetLayouts()) > 1
	m := backup.Manifest{Version: 1, Cluster: st.GetCluster(), Layout: facts.Before, Replicas: int(before.GetLayouts()[0].GetReplicas()),
		MinWrite: facts.MinWrite, Began: began.UTC(), Ended: time.Now().UTC()}
	for _, c := range copies {
		if !c.member && c.node.Error != "" {
			continue // it owns nothing
		}
		m.Nodes = append(m.Nodes, c.node)
		if c.member {
			facts.Nodes = append(facts.Nodes, c.node)
		}
		if c.node.Error != "" {
			continue
		}
		if c.head.Cluster != m.Cluster {
			return m, &failure{code: ExitError, title: "node " + c.node.Name + " belongs to another cluster"}
		}
		facts.Changing = facts.Changing || c.head.Layout != facts.Before
		if grace := time.Duration(c.head.GraceMS) * time.Millisecond; facts.Grace == 0 || grace < facts.Grace {
			facts.Grace = grace
		}
	}
	m.Complete, m.Why = backup.Assess(facts)
	return m, nil
}

// copiesOf lists whom to read: the members of all live layouts, and whoever else the gateway is connected to.
func copiesOf(l *clusterv1.GetLayoutResponse, list *clusterv1.ListNodesResponse) []*nodeCopy {
	var out []*nodeCopy
	seen := make(map[string]bool)
	for _, layout := range l.GetLayouts() {
		for _, m := range layout.GetMembers() {
			if !seen[m.GetId()] {
				seen[m.GetId()] = true
				out = append(out, &nodeCopy{node: backup.Node{ID: m.GetId(), Name: m.GetName()}, member: true})
			}
		}
	}
	for _, n := range list.GetNodes() {
		if !seen[n.GetId()] && n.GetConnected() {
			out = append(out, &nodeCopy{node: backup.Node{ID: n.GetId(), Name: n.GetName()}})
		}
	}
	return out
}

// readPart reads one part of all nodes that were not missed yet, side by side, and returns when the last moment was fixed.
func (s *session) readPart(ctx context.Context, dir, part string, copies []*nodeCopy) (fixed time.Time) {
	var mu sync.Mutex
	slots := make(chan struct{}, bulkAtOnce)
	var owned sync.WaitGroup
	for _, c := range copies {
		if c.node.Error != "" {
			continue
		}
		slots <- struct{}{}
		owned.Go(func() {
			defer func() { <-slots }()
			var f backup.File
			err := s.patiently(ctx, 3, func() error {
				var at time.Time
				var err error
				if f, c.head, at, err = s.readNode(ctx, dir, part, c.node); err != nil {
					return err
				}
				mu.Lock()
				defer mu.Unlock()
				if at.After(fixed) {
					fixed = at
				}
				return nil
			})
			if err != nil {
				// What there is of it is of no use; a node that is missed is named.
				c.node.Error = cmp.Or(plainError(err), "failed")
				for _, f := range c.node.Files {
					err = os.Remove(filepath.Join(dir, f.Name))
				}
				if c.node.Files = nil; err != nil {
					c.node.Error += "; " + err.Error()
				}
				complain(s.env.Stderr, "dotringctl: %s: %s\n", escapeText(c.node.Name), escapeText(c.node.Error))
				return
			}
			c.node.Files = append(c.node.Files, f)
		})
	}
	owned.Wait()
	return fixed
}

func plainError(err error) string {
	var f *failure
	if errors.As(err, &f) && f.detail != "" {
		return f.title + ": " + f.detail
	}
	return err.Error()
}

// patiently tries what may pass, with pauses.
func (s *session) patiently(ctx context.Context, tries int, try func() error) error {
	for i := 0; ; i++ {
		err := try()
		var f *failure
		var cut *connError
		passing := errors.As(err, &f) && (f.status == 0 || f.status == http.StatusTooManyRequests || f.status >= 500) ||
			errors.As(err, &cut) || errors.Is(err, backup.ErrDamaged)
		if err == nil || !passing || i+1 >= tries || ctx.Err() != nil {
			return err
		}
		t := time.NewTimer(min(bulkPause<<i, bulkPauseMost))
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
		}
	}
}

// readNode writes one part of a node into a file, checked as it comes.
func (s *session) readNode(ctx context.Context, dir, part string, n backup.Node) (f backup.File, head backup.Head, fixed time.Time, err error) {
	name := fmt.Sprintf("%s-%s-%s.dotring", part, plainName(n.Name), n.ID[:min(8, len(n.ID))])
	body, err := s.client.open(ctx, call{method: http.MethodGet, path: "/v1/cluster:snapshot", query: url.Values{"node": {n.ID}, "part": {part}}})
	if err != nil {
		return f, head, fixed, err
	}
	defer func() { err = errors.Join(err, body.Close()) }()
	path := filepath.Join(dir, name)
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return f, head, fixed, err
	}
	sum, size := sha256.New(), new(tally)
	r, err := backup.NewReader(io.TeeReader(body, io.MultiWriter(file, sum, size)))
	if err == nil {
		head, fixed = r.Head(), time.Now()
		for err == nil {
			_, _, err = r.Next()
		}
		if errors.Is(err, io.EOF) {
			err = nil
		}
	}
	if err = errors.Join(err, file.Sync(), file.Close()); err != nil {
		return f, head, fixed, errors.Join(err, os.Remove(path))
	}
	if head.Node != n.ID || head.Part != part {
		return f, head, fixed, fmt.Errorf("the gateway answered with %s of node %s", head.Part, head.Node)
	}
	return backup.File{Name: name, Part: part, Records: r.Count(), Bytes: int64(*size), SHA256: hex.EncodeToString(sum.Sum(nil))}, head, fixed, nil
}

// tally counts what is written to it.
type tally int64

func (c *tally) Write(b []byte) (int, error) {
	*c += tally(len(b))
	return len(b), nil
}

// plainName makes a part of a file's name of a node's.
func plainName(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case 'a' <= r && r <= 'z', 'A' <= r && r <= 'Z', '0' <= r && r <= '9', r == '-', r == '.' && s[0] != '.':
			return r
		default:
			return '_'
		}
	}, s)
}

// tellBackup prints what a backup is. One that is not complete is a failure.
func (s *session) tellBackup(dir string, m backup.Manifest) error {
	if s.json {
		if err := s.printJSON(m); err != nil {
			return err
		}
	} else {
		rows := table{headings("NODE", "RECORDS", "FOR OTHERS", "SIZE", "ERROR")}
		for _, n := range m.Nodes {
			counts, size := map[string]uint64{}, int64(0)
			for _, f := range n.Files {
				counts[f.Part] += f.Records
				size += f.Bytes
			}
			rows = append(rows, []cell{text(n.Name), number("%d", counts[backup.Records]), number("%d", counts[backup.Hints]),
				number("%s", byteSize(uint64(size))), styled(n.Error, bad)})
		}
		word := s.out.paint(good, "complete")
		if !m.Complete {
			word = s.out.paint(bad, "not complete")
		}
		note := ""
		for _, w := range m.Why {
			note += "  " + escapeText(w) + "\n"
		}
		if err := s.print(fmt.Sprintf("%s\nBackup %s of cluster %s at %s: %s\n%s", rows.render(s.out, ""), escapeText(dir), escapeText(m.Cluster),
			m.Began.Format(time.RFC3339), word, note)); err != nil {
			return err
		}
	}
	if !m.Complete {
		return exitCode(ExitError)
	}
	return nil
}

type restoreCommand struct {
	Dir        string `arg:"" help:"Directory of a backup." type:"path" complete:"directory"`
	Merge      bool   `help:"Go on although the cluster holds keys: each is merged with what the backup has of it."`
	Incomplete bool   `help:"Go on although the backup is not complete."`
}

// Help is shown by --help.
func (restoreCommand) Help() string {
	return `Every key comes back byte for byte, with all its siblings, and what was deleted stays deleted. The cluster may be of ` +
		`another size. The backup is verified first. The cluster should be empty; with --merge what is newer in it wins over the ` +
		`backup, what was written apart becomes siblings, and a key that was deleted since the backup, longer ago than --tombstone-grace, ` +
		`comes back. A restore that was interrupted is run again with --merge. To put single keys back over what is there, export and import them.

` + examples("dotringctl restore /backups/monday", "dotringctl --gateway http://10.0.0.7:8080 restore --merge /backups/monday")
}

// Run restores.
func (c *restoreCommand) Run(ctx context.Context, s *session) error {
	m, err := backup.Verify(c.Dir)
	if err != nil {
		return &failure{code: ExitError, title: "the backup is not whole; nothing was restored", detail: err.Error()}
	}
	if !m.Complete && !c.Incomplete {
		return &failure{code: ExitError, title: "the backup is not complete; nothing was restored", detail: strings.Join(m.Why, "\n"),
			hint: "With --incomplete it is restored as it is."}
	}
	if err := s.mayRestore(ctx, c.Merge); err != nil {
		return err
	}
	n, err := s.restore(ctx, c.Dir, m)
	if err != nil {
		return err
	}
	if s.json {
		return s.printJSON(struct {
			Restored uint64 `json:"restored"`
		}{n})
	}
	return s.print(fmt.Sprintf("Restored %d keys of the backup of %s.\n", n, m.Began.Format(time.RFC3339)))
}

// mayRestore says whether the cluster is there, settled, and empty.
func (s *session) mayRestore(ctx context.Context, merge bool) error {
	var st clusterv1.GetStatusResponse
	var list clusterv1.ListNodesResponse
	if err := errors.Join(s.get(ctx, "/v1/cluster/status", &st), s.get(ctx, "/v1/cluster/nodes", &list)); err != nil {
		return err
	}
	if st.GetCluster() == "" {
		return &failure{code: ExitError, title: "the gateway knows no cluster yet"}
	}
	if merge {
		return nil
	}
	for _, n := range list.GetNodes() {
		switch {
		case n.GetKeys() > 0:
			return &failure{code: ExitError, title: "the cluster is not empty; nothing was restored", detail: fmt.Sprintf("node %s holds %d keys", n.GetName(), n.GetKeys()),
				hint: "With --merge each key is merged with what the backup has of it; see dotringctl restore --help."}
		case n.GetError() != "":
			return &failure{code: ExitError, title: "it is not known whether the cluster is empty; nothing was restored", detail: n.GetName() + ": " + n.GetError(),
				hint: "With --merge it goes on."}
		}
	}
	return nil
}

// restore sends the merge of all records, and then what nodes kept for others.
func (s *session) restore(ctx context.Context, dir string, m backup.Manifest) (keys uint64, err error) {
	p := newPieces(ctx, s)
	err = func() error {
		var files []*backup.Reader
		for _, f := range m.FilesOf(backup.Records) {
			r, file, err := backup.Open(dir, f)
			if err != nil {
				return err
			}
			defer func() { complainErr(s, file.Close()) }()
			files = append(files, r)
		}
		if err := backup.Merge(files, func(key, rec []byte) error { keys++; return p.add(key, rec) }); err != nil {
			return err
		}
		for _, f := range m.FilesOf(backup.Hints) {
			if err := p.file(dir, f); err != nil {
				return err
			}
		}
		return p.flush()
	}()
	return keys, cmp.Or(p.wait(), err)
}

func complainErr(s *session, err error) {
	if err != nil {
		complain(s.env.Stderr, "dotringctl: %v\n", err)
	}
}

// pieces sends records in pieces, some at once.
type pieces struct {
	s      *session
	ctx    context.Context
	cancel context.CancelCauseFunc
	buf    *bytes.Buffer
	w      *backup.Writer
	slots  chan struct{}
	owned  sync.WaitGroup
}

func newPieces(ctx context.Context, s *session) *pieces {
	ctx, cancel := context.WithCancelCause(ctx)
	return &pieces{s: s, ctx: ctx, cancel: cancel, slots: make(chan struct{}, restorers)}
}

func (p *pieces) add(key, rec []byte) (err error) {
	if p.w != nil && p.buf.Len()+p.w.Pending()+len(key)+len(rec) > restorePiece {
		if err := p.flush(); err != nil {
			return err
		}
	}
	if p.w == nil {
		p.buf = new(bytes.Buffer)
		if p.w, err = backup.NewWriter(p.buf, backup.Head{Part: backup.Records}); err != nil {
			return err
		}
	}
	return p.w.Add(key, rec)
}

// file adds all records of one file.
func (p *pieces) file(dir string, f backup.File) (err error) {
	r, file, err := backup.Open(dir, f)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	for {
		key, rec, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil {
			err = p.add(key, rec)
		}
		if err != nil {
			return err
		}
	}
}

// flush sends what was added.
func (p *pieces) flush() error {
	if p.w == nil {
		return p.ctx.Err()
	}
	if err := p.w.End(); err != nil {
		return err
	}
	body := p.buf.Bytes()
	p.w, p.buf = nil, nil
	select {
	case p.slots <- struct{}{}:
	case <-p.ctx.Done():
		return p.ctx.Err()
	}
	p.owned.Go(func() {
		defer func() { <-p.slots }()
		if err := p.s.patiently(p.ctx, bulkTries, func() error { return p.s.restorePiece(p.ctx, body) }); err != nil {
			p.cancel(err)
		}
	})
	return nil
}

// wait returns the first failure of a piece.
func (p *pieces) wait() error {
	p.owned.Wait()
	defer p.cancel(nil)
	return context.Cause(p.ctx)
}

func (s *session) restorePiece(ctx context.Context, body []byte) error {
	a, err := s.client.do(ctx, call{method: http.MethodPost, path: "/v1/cluster:restore", body: body, wait: pieceTime + slack,
		header: http.Header{"Content-Type": {"application/vnd.dotring.backup"}}})
	if err != nil {
		return failed(err, "")
	}
	if a.status != http.StatusOK {
		return refused(a, "")
	}
	return nil
}
