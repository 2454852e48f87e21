package backup

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// The files of a backup besides those of the nodes. ManifestName is written last but one, SumsName last: a directory
// without them is no backup.
const (
	ManifestName = "backup.json"
	// SumsName lists the SHA-256 of every other file, as sha256sum does.
	SumsName = "SHA256SUMS"
)

// Manifest says what a backup is.
type Manifest struct {
	Version  int       `json:"version"` // 1
	Cluster  string    `json:"cluster"`
	Layout   string    `json:"layout"`
	Replicas int       `json:"replicas"`
	MinWrite int       `json:"min_write_quorum"`
	Began    time.Time `json:"began"` // what was acknowledged before is in it, if it is complete
	Ended    time.Time `json:"ended"`
	Complete bool      `json:"complete"`
	// Why it is not complete, or what should be known of it, for people.
	Why   []string `json:"why,omitempty"`
	Nodes []Node   `json:"nodes"`
}

// Node is a member of the cluster, and its files.
type Node struct {
	ID    string `json:"id"`
	Name  string `json:"name"`
	Error string `json:"error,omitempty"` // why there are no files
	Files []File `json:"files,omitempty"`
}

// File is one part of a node.
type File struct {
	Name    string `json:"name"`
	Part    string `json:"part"`
	Records uint64 `json:"records"`
	Bytes   int64  `json:"bytes"`
	SHA256  string `json:"sha256"`
}

// Facts are what Assess decides by.
type Facts struct {
	// Before and After are the names of the settled layout, and Changing says that a change was under way at either time.
	Before, After string
	Changing      bool
	MinWrite      int
	Nodes         []Node
	// Spread is the time from the first moment that was fixed to the last, and Grace the shortest --tombstone-grace.
	Spread, Grace time.Duration
}

// Assess says whether a backup holds all that was acknowledged before it began, and no value that a deletion had covered,
// and why not. An acknowledged write was on W machines; a hint among them moves to an owner's records alone, and those
// are read later than all hints. So fewer than W machines may be missing. While a layout changes records move between owners, and
// a deletion, or an entry of a clock, is forgotten no sooner than half the grace time after the last older copy went.
func Assess(f Facts) (complete bool, why []string) {
	complete = true
	not := func(format string, args ...any) {
		complete = false
		why = append(why, fmt.Sprintf(format, args...))
	}
	if f.Changing || f.Before != f.After {
		not("the layout was changing: take it again once it is settled")
	}
	var missing []string
	for _, n := range f.Nodes {
		if n.Error != "" {
			missing = append(missing, n.Name)
		}
	}
	switch {
	case len(f.Nodes) == 0:
		not("the cluster has no members")
	case len(missing) == len(f.Nodes) || len(missing) >= f.MinWrite:
		not("%s missing, and what only %d machines acknowledged may be on these alone", strings.Join(missing, ", "), f.MinWrite)
	case len(missing) > 0:
		why = append(why, strings.Join(missing, ", ")+" missing, but all that was acknowledged is on others too")
	}
	if f.Spread >= f.Grace/2 {
		not("its moments are %s apart, which is not below the time %s after which deletions are forgotten", f.Spread.Round(time.Millisecond), f.Grace/2)
	}
	return complete, why
}

// Finish writes the manifest and the sums into dir, and syncs both. The files are there already.
func Finish(dir string, m Manifest) error {
	text, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return fmt.Errorf("encode manifest: %w", err)
	}
	text = append(text, '\n')
	var sums strings.Builder
	fmt.Fprintf(&sums, "%x  %s\n", sha256.Sum256(text), ManifestName)
	for _, n := range m.Nodes {
		for _, f := range n.Files {
			fmt.Fprintf(&sums, "%s  %s\n", f.SHA256, f.Name)
		}
	}
	if err := writeFile(filepath.Join(dir, ManifestName), text); err != nil {
		return err
	}
	if err := writeFile(filepath.Join(dir, SumsName), []byte(sums.String())); err != nil {
		return err
	}
	return syncDir(dir)
}

func writeFile(path string, b []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	return errors.Join(err, f.Sync(), f.Close())
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Load reads the manifest, checked against the sums. Errors wrap ErrDamaged, or are those of the file system.
func Load(dir string) (Manifest, error) {
	var m Manifest
	sums, err := os.ReadFile(filepath.Join(dir, SumsName))
	if errors.Is(err, os.ErrNotExist) {
		return m, fmt.Errorf("%w: %s is missing: %s holds no backup, or one that was not finished", ErrDamaged, SumsName, dir)
	}
	if err != nil {
		return m, err
	}
	text, err := os.ReadFile(filepath.Join(dir, ManifestName))
	if err != nil {
		return m, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if err := json.Unmarshal(text, &m); err != nil {
		return m, fmt.Errorf("%w: %s: %w", ErrDamaged, ManifestName, err)
	}
	if m.Version != 1 {
		return m, fmt.Errorf("%s is of version %d, this program reads version 1", ManifestName, m.Version)
	}
	var want bytes.Buffer
	fmt.Fprintf(&want, "%x  %s\n", sha256.Sum256(text), ManifestName)
	for _, n := range m.Nodes {
		for _, f := range n.Files {
			if f.Name != filepath.Base(f.Name) || f.Part != Hints && f.Part != Records {
				return m, fmt.Errorf("%w: file %q", ErrDamaged, f.Name)
			}
			fmt.Fprintf(&want, "%s  %s\n", f.SHA256, f.Name)
		}
	}
	if !bytes.Equal(sums, want.Bytes()) {
		return m, fmt.Errorf("%w: %s and %s do not fit each other", ErrDamaged, SumsName, ManifestName)
	}
	return m, nil
}

// Open opens one file of a backup; close ends it.
func Open(dir string, f File) (r *Reader, closer io.Closer, err error) {
	file, err := os.Open(filepath.Join(dir, f.Name))
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if r, err = NewReader(file); err != nil {
		return nil, nil, errors.Join(fmt.Errorf("%s: %w", f.Name, err), file.Close())
	}
	return r, file, nil
}

// Verify reads every byte of a backup and checks every sum, the order and every record. It names all damaged files.
// Errors wrap ErrDamaged, or are those of the file system.
func Verify(dir string) (Manifest, error) {
	m, err := Load(dir)
	if err != nil {
		return m, err
	}
	var faults []error
	for _, n := range m.Nodes {
		for _, f := range n.Files {
			if err := verifyFile(dir, m, n, f); err != nil {
				faults = append(faults, fmt.Errorf("%s: %w", f.Name, err))
			}
		}
	}
	return m, errors.Join(faults...)
}

func verifyFile(dir string, m Manifest, n Node, f File) (err error) {
	file, err := os.Open(filepath.Join(dir, f.Name))
	if err != nil {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	sum := sha256.New()
	r, err := NewReader(io.TeeReader(file, sum))
	if err != nil {
		return err
	}
	s := source{r: r}
	for !s.done {
		if f.Part == Hints {
			s.key = nil // they lie by the node that they are for first
		}
		if err := s.advance(); err != nil {
			return err
		}
	}
	h := r.Head()
	switch {
	case hex.EncodeToString(sum.Sum(nil)) != f.SHA256 || r.Count() != f.Records:
		return fmt.Errorf("%w: it is not the file that the manifest names", ErrDamaged)
	case h.Cluster != m.Cluster || h.Node != n.ID || h.Part != f.Part:
		return fmt.Errorf("%w: it is of node %s of cluster %s", ErrDamaged, h.Node, h.Cluster)
	}
	return nil
}

// FilesOf lists the files of one part.
func (m Manifest) FilesOf(part string) (out []File) {
	for _, n := range m.Nodes {
		for _, f := range n.Files {
			if f.Part == part {
				out = append(out, f)
			}
		}
	}
	return slices.Clip(out)
}
