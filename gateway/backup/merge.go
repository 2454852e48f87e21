package backup

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"

	"github.com/dotring/dotring/ringsvc/causal"
	"github.com/dotring/dotring/ringsvc/record"
	"github.com/dotring/dotring/ringsvc/ring"
)

// order is how records lie in a file.
func order(a, b []byte) int {
	return cmp.Or(cmp.Compare(ring.Hash(a), ring.Hash(b)), bytes.Compare(a, b))
}

// source is one file on its way through Merge.
type source struct {
	r        *Reader
	key, rec []byte
	last     []byte
	done     bool
}

// advance reads the next record of a source, which must come behind the one before.
func (s *source) advance() (err error) {
	s.last = append(s.last[:0], s.key...)
	s.key, s.rec, err = s.r.Next()
	if errors.Is(err, io.EOF) {
		s.done, s.key = true, nil
		return nil
	}
	if err == nil && len(s.last) > 0 && order(s.key, s.last) <= 0 {
		err = fmt.Errorf("%w: records out of order", ErrDamaged)
	}
	return err
}

// Merge goes through files of Records side by side and calls fn once for each key with the merge of its copies, by hash and
// key. What fn is given is valid until it returns. It holds one block of each file. Errors wrap ErrDamaged, or are those
// of the files and of fn.
func Merge(files []*Reader, fn func(key, rec []byte) error) error {
	sources := make([]*source, len(files))
	for i, r := range files {
		sources[i] = &source{r: r}
		if err := sources[i].advance(); err != nil {
			return err
		}
	}
	for {
		var first []byte
		for _, s := range sources {
			if !s.done && (first == nil || order(s.key, first) < 0) {
				first = s.key
			}
		}
		if first == nil {
			return nil
		}
		key := bytes.Clone(first)
		var merged []byte
		for _, s := range sources {
			if s.done || !bytes.Equal(s.key, key) {
				continue
			}
			var err error
			if merged, err = union(key, merged, s.rec); err != nil {
				return err
			}
			if err := s.advance(); err != nil {
				return err
			}
		}
		if err := fn(key, merged); err != nil {
			return err
		}
	}
}

// union merges two copies of a record; a is nil or belongs to the caller.
func union(key, a, b []byte) ([]byte, error) {
	if a == nil {
		return bytes.Clone(b), nil
	}
	if bytes.Equal(a, b) {
		return a, nil
	}
	x, err := record.Decode(key, a)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	y, err := record.Decode(key, b)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return record.Append(nil, key, causal.Merge(x, y)), nil
}
