package node

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/rs/zerolog"

	"github.com/dotring/dotring/storagenode/engine"
	"github.com/dotring/dotring/storagenode/engine/leveldb"
	"github.com/dotring/dotring/storagenode/engine/pebble"
	"github.com/dotring/dotring/storagenode/kv"
)

// pebbleFolder is where Pebble keeps its files, below the folder that is LevelDB's own.
const pebbleFolder = "pebble"

// levelDBMark is the file that every LevelDB database has.
const levelDBMark = "CURRENT"

var errOtherEngine = errors.New("the data was written by another engine")

// diskEngine returns the opener of the engine that cfg names, on dir. Data of another engine there is an error: the
// node would come up empty, and LevelDB would take Pebble's files for rubbish of its own.
func diskEngine(cfg Config, dir string, log zerolog.Logger) (engine.Opener, error) {
	other, name := filepath.Join(dir, pebbleFolder), EnginePebble
	if cfg.Engine == EnginePebble {
		other, name = filepath.Join(dir, levelDBMark), EngineLevelDB
	}
	switch _, err := os.Stat(other); {
	case err == nil:
		return nil, fmt.Errorf("engine: %w: %s exists, start with --engine %s", errOtherEngine, other, name)
	case !errors.Is(err, os.ErrNotExist):
		return nil, fmt.Errorf("engine: %w", err)
	}
	if cfg.Engine == EnginePebble {
		o := pebble.Default()
		o.CompactionRate = cfg.CompactionRate
		return pebble.Opener(filepath.Join(dir, pebbleFolder), o, log), nil
	}
	o := leveldb.Default()
	o.CompactionRate, o.Note = cfg.CompactionRate, kv.DamageNote
	return leveldb.Opener(dir, o), nil
}
