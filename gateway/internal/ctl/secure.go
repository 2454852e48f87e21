package ctl

import (
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/dotring/dotring/gateway/access"
	"github.com/dotring/dotring/ringsvc/mtls"
)

// certCommand makes certificates for a cluster that has no authority of its own.
type certCommand struct {
	Authority certAuthorityCommand `cmd:"" help:"Make an authority, which signs the others' certificates."`
	Node      certNodeCommand      `cmd:"" help:"Make the certificate of a storage node."`
	Gateway   certGatewayCommand   `cmd:"" help:"Make the certificate of a gateway."`
	Client    certClientCommand    `cmd:"" help:"Make the certificate of a gRPC client, or of one that reads metrics."`
}

const day = 24 * time.Hour

type certAuthorityCommand struct {
	Dir   string `arg:"" name:"DIR" help:"Folder for ca.pem, which every server gets, and ca.key, which none gets." complete:"directory"`
	Name  string `help:"Name in the certificate." default:"Dotring authority" placeholder:"NAME"`
	Days  int    `help:"Days until it ends. Default: 3650." default:"3650" placeholder:"N"`
	Force bool   `help:"Replace one that is there; the certificates it signed are then good for nothing."`
}

// Help is shown by --help.
func (certAuthorityCommand) Help() string {
	return examples("dotringctl cert authority pki")
}

// Run makes an authority.
func (c certAuthorityCommand) Run(s *session) error {
	if c.Days < 1 {
		return usageError("--days must be at least 1")
	}
	pair, err := mtls.NewAuthority(c.Name, time.Now(), time.Duration(c.Days)*day)
	if err != nil {
		return err
	}
	return s.writePair(c.Dir, "ca", pair, c.Force)
}

// issuing is what all certificates but an authority's have in common.
type issuing struct {
	Name      string   `arg:"" name:"NAME" help:"Who it is for; the files are NAME.pem and NAME.key."`
	Authority string   `help:"Folder of the authority. Default: the current one." default:"." placeholder:"DIR" complete:"directory"`
	Out       string   `help:"Folder for the files. Default: that of the authority." placeholder:"DIR" complete:"directory"`
	Host      []string `help:"Name or address by which clients reach it; may be repeated." placeholder:"HOST"`
	Days      int      `help:"Days until it ends. Default: 397." default:"397" placeholder:"N"`
	Force     bool     `help:"Replace the one that is there. Running servers take it over by themselves."`
}

func (c issuing) issue(s *session, hosts ...string) error {
	if c.Days < 1 {
		return usageError("--days must be at least 1")
	}
	if c.Name != filepath.Base(c.Name) || c.Name == "." || c.Name == "ca" {
		return usageError(fmt.Sprintf("NAME is the name of two files: %q cannot be", c.Name))
	}
	var authority mtls.Pair
	var err error
	if authority.Cert, err = os.ReadFile(filepath.Join(c.Authority, "ca.pem")); err != nil {
		return fmt.Errorf("read the authority: %w", err)
	}
	if authority.Key, err = os.ReadFile(filepath.Join(c.Authority, "ca.key")); err != nil {
		return fmt.Errorf("read the authority's key: %w", err)
	}
	pair, err := mtls.Issue(authority, c.Name, append(hosts, c.Host...), time.Now(), time.Duration(c.Days)*day)
	if err != nil {
		return err
	}
	out := c.Out
	if out == "" {
		out = c.Authority
	}
	return s.writePair(out, c.Name, pair, c.Force)
}

type certNodeCommand struct{ issuing }

// Help is shown by --help.
func (certNodeCommand) Help() string {
	return examples("dotringctl cert node node1 --authority pki", "dotringctl cert node node1 --authority pki --force    # before it ends")
}

// Run makes a certificate.
func (c certNodeCommand) Run(s *session) error { return c.issue(s, mtls.RoleNode) }

type certGatewayCommand struct{ issuing }

// Help is shown by --help.
func (certGatewayCommand) Help() string {
	return examples("dotringctl cert gateway gw1 --authority pki --host kv.example.org --host 10.0.0.7")
}

// Run makes a certificate.
func (c certGatewayCommand) Run(s *session) error { return c.issue(s, mtls.RoleGateway) }

type certClientCommand struct{ issuing }

// Help is shown by --help.
func (certClientCommand) Help() string {
	return examples("dotringctl cert client prometheus --authority pki --out /etc/prometheus/pki")
}

// Run makes a certificate.
func (c certClientCommand) Run(s *session) error { return c.issue(s) }

// writePair writes NAME.key and NAME.pem, the key first, and says so.
func (s *session) writePair(dir, name string, pair mtls.Pair, force bool) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("create folder: %w", err)
	}
	cert, key := filepath.Join(dir, name+".pem"), filepath.Join(dir, name+".key")
	for _, path := range []string{cert, key} {
		if _, err := os.Stat(path); err == nil && !force {
			return fmt.Errorf("%s is there already; --force replaces it", path)
		} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("look for %s: %w", path, err)
		}
	}
	if err := replace(key, pair.Key, 0o600); err != nil {
		return err
	}
	if err := replace(cert, pair.Cert, 0o644); err != nil {
		return err
	}
	if s.json {
		return s.printJSON(map[string]string{"certificate": cert, "key": key})
	}
	return s.print(fmt.Sprintf("certificate %s\nkey         %s\n", cert, key))
}

// replace writes a file whole or not at all.
func replace(path string, b []byte, mode fs.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	_, err = f.Write(b)
	err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, errors.Join(err, os.Remove(f.Name())))
	}
	return nil
}

// tokenCommand makes a token.
type tokenCommand struct {
	Name      string        `arg:"" name:"NAME" help:"Who it is for, unique in the file."`
	File      string        `help:"File of access rules, as gateways get by --access-file; created when missing. Default: access.yaml." default:"access.yaml" placeholder:"FILE" complete:"file"`
	Allow     []string      `required:"" sep:"none" help:"What keys of a prefix may be used for: PREFIX=get,put,delete, or =admin for the cluster. May be repeated." placeholder:"PREFIX=ACTIONS"`
	PerSecond float64       `help:"How many operations a second each gateway lets in; what is beyond gets 429. Default: no limit." placeholder:"N"`
	Burst     int           `help:"How many of them may come in an instant. Default: as many as in a second." placeholder:"N"`
	AtOnce    int           `help:"How many requests may be under way at each gateway. Default: no limit." placeholder:"N"`
	Expires   time.Duration `help:"How long it is good, such as 720h. Default: for ever." placeholder:"DURATION"`
}

// Help is shown by --help.
func (tokenCommand) Help() string {
	return "The token is printed once and stored nowhere; the file holds its hash.\n\n" +
		examples("dotringctl token web --allow user/=get,put,delete --file access.yaml",
			"dotringctl token batch --allow user/=get --per-second 500 --at-once 64",
			"dotringctl token ops --allow =get,admin --expires 720h > ops.token")
}

// Run makes a token and adds it to the file.
func (c tokenCommand) Run(s *session) error {
	var rules []access.EntryRule
	for _, a := range c.Allow {
		i := strings.LastIndexByte(a, '=')
		if i < 0 {
			return usageError(fmt.Sprintf("--allow takes PREFIX=ACTIONS, not %q", a))
		}
		r := access.EntryRule{Prefix: a[:i]}
		if a[i+1:] != "" {
			r.Allow = strings.Split(a[i+1:], ",")
		}
		rules = append(rules, r)
	}
	if c.Expires < 0 {
		return usageError("--expires lies in the past")
	}
	var expires time.Time
	if c.Expires > 0 {
		expires = time.Now().Add(c.Expires).UTC().Truncate(time.Second)
	}
	token, entry, err := access.NewToken(c.Name, expires, rules)
	if err != nil {
		return usageError(err.Error())
	}
	if limits := (access.EntryLimits{PerSecond: c.PerSecond, Burst: c.Burst, AtOnce: c.AtOnce}); limits != (access.EntryLimits{}) {
		entry.Limits = &limits
	}
	text, err := os.ReadFile(c.File)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("read access rules: %w", err)
	}
	if text, err = access.Append(text, entry); err != nil {
		return err
	}
	if err := replace(c.File, text, 0o600); err != nil {
		return err
	}
	if s.json {
		return s.printJSON(map[string]string{"name": c.Name, "token": token, "file": c.File})
	}
	return s.print(token + "\n")
}

// keyringCommand edits the file of gossip keys that storage nodes get by --gossip-key-file.
type keyringCommand struct {
	New     keyringNewCommand     `cmd:"" help:"Make a file with one key."`
	Add     keyringAddCommand     `cmd:"" help:"Step 1 of a change: add a new key, which decrypts. Then give the file to all nodes."`
	Promote keyringPromoteCommand `cmd:"" help:"Step 2: encrypt with the newest key. Then give the file to all nodes."`
	Prune   keyringPruneCommand   `cmd:"" help:"Step 3: drop all other keys. Then give the file to all nodes."`
}

type keyringNewCommand struct {
	File string `arg:"" name:"FILE" help:"The file." complete:"file"`
}

// Help is shown by --help.
func (keyringNewCommand) Help() string {
	return examples("dotringctl keyring new gossip.json")
}

// Run makes the file.
func (c keyringNewCommand) Run(s *session) error {
	if _, err := os.Stat(c.File); !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s is there already", c.File)
	}
	return s.editKeys(c.File, func(keys []string) ([]string, error) { return addKey(keys) })
}

type keyringAddCommand struct {
	File string `arg:"" name:"FILE" help:"The file." complete:"file"`
}

// Help is shown by --help.
func (keyringAddCommand) Help() string {
	return examples("dotringctl keyring add gossip.json    # then copy it to every node")
}

// Run adds a key.
func (c keyringAddCommand) Run(s *session) error { return s.editKeys(c.File, addKey) }

type keyringPromoteCommand struct {
	File string `arg:"" name:"FILE" help:"The file." complete:"file"`
}

// Help is shown by --help.
func (keyringPromoteCommand) Help() string {
	return examples("dotringctl keyring promote gossip.json    # once every node has the added key")
}

// Run puts the last key first.
func (c keyringPromoteCommand) Run(s *session) error {
	return s.editKeys(c.File, func(keys []string) ([]string, error) {
		if len(keys) < 2 {
			return nil, errors.New("the file has no newer key: add one first")
		}
		last := len(keys) - 1
		return append([]string{keys[last]}, keys[:last]...), nil
	})
}

type keyringPruneCommand struct {
	File string `arg:"" name:"FILE" help:"The file." complete:"file"`
}

// Help is shown by --help.
func (keyringPruneCommand) Help() string {
	return examples("dotringctl keyring prune gossip.json    # once every node encrypts with the new key")
}

// Run keeps the first key alone.
func (c keyringPruneCommand) Run(s *session) error {
	return s.editKeys(c.File, func(keys []string) ([]string, error) {
		if len(keys) == 0 {
			return nil, errors.New("the file has no key")
		}
		return keys[:1], nil
	})
}

const keyBytes = 32

func addKey(keys []string) ([]string, error) {
	key := make([]byte, keyBytes)
	if _, err := rand.Read(key); err != nil {
		return nil, fmt.Errorf("make key: %w", err)
	}
	return append(slices.Clone(keys), base64.StdEncoding.EncodeToString(key)), nil
}

// editKeys reads a file of keys, where there is one, and writes it changed.
func (s *session) editKeys(path string, edit func([]string) ([]string, error)) error {
	var keys []string
	text, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(text, &keys)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("read keys: %w", err)
	}
	if keys, err = edit(keys); err != nil {
		return err
	}
	if text, err = json.Marshal(keys); err != nil {
		return fmt.Errorf("encode keys: %w", err)
	}
	if err := replace(path, append(text, '\n'), 0o600); err != nil {
		return err
	}
	if s.json {
		return s.printJSON(map[string]any{"file": path, "keys": len(keys)})
	}
	return s.print(fmt.Sprintf("%s has %d keys, the first encrypts; running nodes take it over by themselves\n", path, len(keys)))
}

// trust is the TLS configuration for gateways whose authority is in file; nil, the system's authorities, without one.
func trust(file string) (*tls.Config, error) {
	if file == "" {
		return nil, nil
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("--ca: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("--ca: %s holds no certificate", file)
	}
	return &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: pool}, nil
}

// token returns the token to send: from the file, or from the environment; empty for none. On the command line others could
// read it.
func token(file string, getenv func(string) string) (string, error) {
	if file == "" {
		return getenv("DOTRING_TOKEN"), nil
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("--token-file: %w", err)
	}
	t := strings.TrimSpace(string(text))
	if t == "" || strings.ContainsAny(t, "\r\n") {
		return "", fmt.Errorf("--token-file: %s holds no token", file)
	}
	return t, nil
}
