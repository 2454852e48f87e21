package membership

import (
	"bytes"

	"github.com/rs/zerolog"
)

// logWriter turns the lines that serf and memberlist print, such as "[WARN] serf: text", into log events. Lines of the
// lowest level are dropped at once: there is one or more for every packet.
type logWriter struct{ log zerolog.Logger }

// Write takes one line and never fails.
func (w *logWriter) Write(line []byte) (int, error) {
	level, text := zerolog.InfoLevel, line
	if rest, ok := bytes.CutPrefix(line, []byte("[")); ok {
		if name, after, ok := bytes.Cut(rest, []byte("] ")); ok {
			switch string(name) {
			case "TRACE", "DEBUG":
				return len(line), nil
			case "WARN":
				level = zerolog.WarnLevel
			case "ERR", "ERROR":
				level = zerolog.ErrorLevel
			}
			text = after
		}
	}
	w.log.WithLevel(level).Bytes("text", bytes.TrimSpace(text)).Msg("gossip")
	return len(line), nil
}
