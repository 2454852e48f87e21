package config

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/dotring/dotring/ringsvc/causal"
)

// ParseContextKeys reads a context key file: one key, or two during a rotation (the first signs, both verify), a line
// each, in hex or base64 (standard or URL-safe, padded or not), of at least causal.MinContextKey bytes. Empty lines and
// those that begin with # are skipped. What is of hexadecimal digits alone is hex. Errors name the line and never the key.
func ParseContextKeys(text []byte) (causal.Keyring, error) {
	var keys [][]byte
	var faults []error
	for i, line := range bytes.Split(text, []byte("\n")) {
		line = bytes.TrimSpace(line)
		if len(line) == 0 || line[0] == '#' {
			continue
		}
		key, err := decodeKey(string(line))
		if err != nil {
			faults = append(faults, fmt.Errorf("line %d: %w", i+1, err))
			continue
		}
		keys = append(keys, key)
	}
	if len(faults) > 0 {
		return causal.Keyring{}, errors.Join(faults...)
	}
	if len(keys) == 0 {
		return causal.Keyring{}, errors.New("it holds no key")
	}
	ring, err := causal.NewKeyring(keys...)
	if err != nil {
		return causal.Keyring{}, fmt.Errorf("context keys: %w", err)
	}
	return ring, nil
}

func decodeKey(line string) ([]byte, error) {
	if key, err := hex.DecodeString(line); err == nil {
		return key, nil
	}
	for _, e := range []*base64.Encoding{base64.StdEncoding, base64.RawStdEncoding, base64.URLEncoding, base64.RawURLEncoding} {
		if key, err := e.DecodeString(line); err == nil {
			return key, nil
		}
	}
	return nil, errors.New("it is neither hex nor base64")
}
