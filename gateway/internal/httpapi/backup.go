package httpapi

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/dotring/dotring/gateway/backup"
	"github.com/dotring/dotring/gateway/coordinator"
	"github.com/dotring/dotring/gateway/internal/httpapi/edge"
	"github.com/dotring/dotring/gateway/internal/problem"
)

// Backups reads what nodes hold, and brings records of backups back.
type Backups interface {
	// Snapshot begins to read a part of what a node holds, fixed when it returns; next calls add with some records, and
	// returns io.EOF behind the last. Everything ends with ctx.
	Snapshot(ctx context.Context, node, part string) (head backup.Head, next func(add func(key, rec []byte) error) error, err error)
	// Restore brings one record to the owners of its key.
	Restore(ctx context.Context, key, rec []byte, trace string) error
}

const (
	backupType = "application/vnd.dotring.backup"
	// maxRestoreBytes is the size of the largest piece of a backup that is posted: the largest record, and some room.
	maxRestoreBytes = 8 << 20
	// restoreAtOnce is how many records of it are under way at once.
	restoreAtOnce = 64
	// snapshotRoom is what one snapshot may hold in memory, and snapshotPause how long its reader may take none of it.
	snapshotRoom  = 2 << 20
	snapshotPause = 60 * time.Second
)

// snapshot streams what a node holds.
func (a *API) snapshot(x *exchange, r *http.Request) {
	if !x.readOnly(r) || !x.admit(r, snapshotRoom) {
		return
	}
	node, part, err := parseSnapshot(r.URL.RawQuery)
	if err != nil {
		x.fail(r, err)
		return
	}
	x.Header()["Content-Security-Policy"] = a.common.sandbox // values come along
	if a.cfg.Guard != nil {
		a.cfg.Guard.Administered(x.who, x.requestID, r.Method+" "+r.URL.RequestURI())
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	head, next, err := a.cfg.Backups.Snapshot(ctx, node, part)
	if err != nil {
		x.fail(r, err)
		return
	}
	head.Taken = a.cfg.Now().UTC()
	x.Header()["Cache-Control"] = a.common.noStore
	x.Header()["Content-Type"] = x.value(backupType)
	x.WriteHeader(http.StatusOK)
	if r.Method == http.MethodHead {
		return
	}
	if err := a.stream(x, head, next); err != nil {
		// Only a broken connection can tell that the answer is not whole; its end is missing too.
		x.err = fmt.Errorf("snapshot of %s: %w", node, err)
		a.cfg.Logger.Warn().Err(err).Str("request_id", x.requestID).Str("node", node).Msg("snapshot cut off")
		panic(http.ErrAbortHandler)
	}
}

func (a *API) stream(x *exchange, head backup.Head, next func(add func(key, rec []byte) error) error) error {
	control := http.NewResponseController(x.ResponseWriter)
	more := func() error {
		if err := control.SetWriteDeadline(a.cfg.Now().Add(snapshotPause)); err != nil && !errors.Is(err, http.ErrNotSupported) {
			return err
		}
		return nil
	}
	if err := more(); err != nil {
		return err
	}
	w, err := backup.NewWriter(x, head)
	if err != nil {
		return err
	}
	if err := control.Flush(); err != nil { // the reader learns that the moment is fixed
		return err
	}
	for {
		switch err := next(w.Add); {
		case errors.Is(err, io.EOF):
			return w.End()
		case err != nil:
			return err
		}
		if err := more(); err != nil {
			return err
		}
	}
}

// parseSnapshot reads the query of a snapshot. Errors wrap problem.ErrBadParameter.
func parseSnapshot(raw string) (node, part string, err error) {
	seen := 0
	err = eachParam(raw, func(name, value string) (err error) {
		bit := 0
		switch name {
		case "node":
			bit, node = 1, value
		case "part":
			bit, part = 2, value
		}
		return checkParam(&seen, bit, name, value, err)
	})
	if err == nil && (node == "" || part != backup.Hints && part != backup.Records) {
		err = fmt.Errorf("%w: node names a node, part is %s or %s", problem.ErrBadParameter, backup.Hints, backup.Records)
	}
	return node, part, err
}

// restore takes a piece of a backup, in the form of a whole file, and brings its records to their owners.
func (a *API) restore(x *exchange, r *http.Request) {
	if r.Method != http.MethodPost {
		x.methodNotAllowed(r, http.MethodPost)
		return
	}
	x.Header()["Content-Security-Policy"] = a.common.sandbox
	room := r.ContentLength
	if room < 0 || room > maxRestoreBytes {
		room = maxRestoreBytes
	}
	if !x.admit(r, 2*room) {
		return
	}
	body, err := a.restoreBody(x, r)
	if err != nil {
		x.fail(r, err)
		return
	}
	ctx, cancel := context.WithDeadline(r.Context(), x.started.Add(edge.MaxTimeout))
	defer cancel()
	n, err := a.restoreAll(ctx, body, x.requestID)
	if err != nil {
		x.fail(r, err)
		return
	}
	x.Header()["Cache-Control"] = a.common.noStore
	x.answer(http.StatusOK, a.common.typeJSON, fmt.Appendf(nil, `{"restored":"%d"}`, n))
}

func (a *API) restoreBody(x *exchange, r *http.Request) ([]byte, error) {
	if err := errors.Join(noParams(r.URL.RawQuery), x.idFault, checkEncoding(r)); err != nil {
		return nil, err
	}
	if r.ContentLength > maxRestoreBytes {
		return nil, fmt.Errorf("%w: %d bytes, the limit is %d", problem.ErrBatchTooLarge, r.ContentLength, maxRestoreBytes)
	}
	body, _, err := x.readBody(r, maxRestoreBytes, x.started.Add(edge.MaxTimeout), nil)
	if errors.Is(err, problem.ErrValueTooLarge) {
		return nil, fmt.Errorf("%w: more than %d bytes", problem.ErrBatchTooLarge, maxRestoreBytes)
	}
	return body, err
}

// restoreAll reads the whole body before anything is done, so that what is damaged changes nothing.
func (a *API) restoreAll(ctx context.Context, body []byte, trace string) (int, error) {
	type entry struct{ key, rec []byte }
	var entries []entry
	in, err := backup.NewReader(bytes.NewReader(body))
	for err == nil {
		var e entry
		if e.key, e.rec, err = in.Next(); err == nil {
			entries = append(entries, entry{bytes.Clone(e.key), bytes.Clone(e.rec)})
		}
	}
	if !errors.Is(err, io.EOF) {
		return 0, fmt.Errorf("%w: %w", problem.ErrBadRequest, err)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	slots := make(chan struct{}, restoreAtOnce)
	var owned sync.WaitGroup
	for _, e := range entries {
		slots <- struct{}{}
		if ctx.Err() != nil {
			break
		}
		owned.Go(func() {
			defer func() { <-slots }()
			// What fails ends the whole: it is sent again as it is.
			if err := a.cfg.Backups.Restore(ctx, e.key, e.rec, trace); err != nil {
				cancel(err)
			}
		})
	}
	owned.Wait()
	if err := context.Cause(ctx); err != nil {
		if errors.Is(err, context.DeadlineExceeded) {
			err = &coordinator.Error{Kind: coordinator.DeadlinePassed, Outcome: coordinator.InDoubt, Err: err}
		}
		return 0, err
	}
	return len(entries), nil
}
