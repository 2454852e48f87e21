package membership

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"

	"github.com/hashicorp/memberlist"
)

// loadKeyring reads the keys that gossip is encrypted with: a JSON array of base64 strings, the first one encrypts, all
// decrypt.
func loadKeyring(path string) (*memberlist.Keyring, error) {
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
	ring, err := memberlist.NewKeyring(keys, keys[0])
	if err != nil {
		return nil, fmt.Errorf("membership: gossip key file %s: %w", path, err)
	}
	return ring, nil
}
