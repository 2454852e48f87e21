package membership

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/hashicorp/memberlist"
)

// keysEvery is how often the file of gossip keys is looked at.
const keysEvery = time.Second

// readKeys reads the keys that gossip is encrypted with: a JSON array of base64 strings, the first one encrypts, all
// decrypt.
func readKeys(path string) ([][]byte, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("membership: gossip key file: %w", err)
	}
	var encoded []string
	if err := json.Unmarshal(text, &encoded); err != nil {
		return nil, fmt.Errorf("membership: gossip key file %s: not a JSON array of strings: %w", path, err)
	}
	if len(encoded) == 0 {
		return nil, fmt.Errorf("membership: gossip key file %s: holds no key", path)
	}
	keys := make([][]byte, len(encoded))
	for i, e := range encoded {
		key, err := base64.StdEncoding.DecodeString(e)
		if err == nil {
			err = memberlist.ValidateKey(key)
		}
		if err != nil { // never with the key itself
			return nil, fmt.Errorf("membership: gossip key file %s: key %d: %w", path, i+1, err)
		}
		keys[i] = key
	}
	return keys, nil
}

// watchKeys puts keys in force when their file changes, until gossip ends. A file that cannot be used leaves the last good
// keys. To change a key under way, every node is first given the new one behind the old, then before it, then alone.
func (c *Cluster) watchKeys(path string, ring *memberlist.Keyring) {
	tick := time.NewTicker(keysEvery)
	defer tick.Stop()
	said := ""
	for {
		select {
		case <-tick.C:
		case <-c.serf.ShutdownCh():
			return
		}
		keys, err := readKeys(path)
		changed := false
		if err == nil {
			changed, err = rekey(ring, keys)
		}
		switch {
		case err != nil && said != err.Error():
			said = err.Error()
			c.log.Error().Err(err).Msg("changed gossip keys cannot be used, the last good ones stay in force")
		case err == nil:
			said = ""
		}
		if changed {
			c.log.Info().Int("keys", len(keys)).Msg("gossip keys changed")
		}
	}
}

// rekey makes keys those of ring, the first the one that encrypts.
func rekey(ring *memberlist.Keyring, keys [][]byte) (changed bool, err error) {
	before := slices.Clone(ring.GetKeys()) // removing a key moves the others
	if slices.EqualFunc(before, keys, bytes.Equal) {
		return false, nil
	}
	for _, k := range keys {
		if err := ring.AddKey(k); err != nil {
			return false, fmt.Errorf("membership: add gossip key: %w", err)
		}
	}
	if !bytes.Equal(ring.GetPrimaryKey(), keys[0]) {
		if err := ring.UseKey(keys[0]); err != nil {
			return false, fmt.Errorf("membership: use gossip key: %w", err)
		}
		changed = true
	}
	same := func(k []byte) func([]byte) bool { return func(o []byte) bool { return bytes.Equal(k, o) } }
	for _, k := range before {
		if !slices.ContainsFunc(keys, same(k)) {
			if err := ring.RemoveKey(k); err != nil {
				return changed, fmt.Errorf("membership: remove gossip key: %w", err)
			}
			changed = true
		}
	}
	for _, k := range keys {
		changed = changed || !slices.ContainsFunc(before, same(k))
	}
	return changed, nil
}
