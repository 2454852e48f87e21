package node

import (
	"errors"
	"testing"

	"github.com/rs/zerolog"

	"github.com/dotring/dotring/storagenode/engine"
)

func TestDiskEngine(t *testing.T) {
	for _, tt := range []struct{ first, second string }{
		{EngineLevelDB, EnginePebble},
		{EnginePebble, EngineLevelDB},
	} {
		t.Run(tt.first+" then "+tt.second, func(t *testing.T) {
			dir := t.TempDir()
			write := func(name string) error {
				open, err := diskEngine(Config{Engine: name}, dir, zerolog.Nop())
				if err != nil {
					return err
				}
				e, err := open()
				if err != nil {
					return err
				}
				var b engine.Batch
				b.Put([]byte("engine"), []byte(name))
				return errors.Join(e.Apply(&b, true), e.Close())
			}
			if err := write(tt.first); err != nil {
				t.Fatal(err)
			}
			if err := write(tt.second); !errors.Is(err, errOtherEngine) {
				t.Errorf("the other engine: %v, want errOtherEngine", err)
			}
			if err := write(tt.first); err != nil {
				t.Errorf("the same engine again: %v", err)
			}
		})
	}
}
