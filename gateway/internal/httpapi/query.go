package httpapi

import (
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/dotring/dotring/gateway/coordinator"
	"github.com/dotring/dotring/gateway/internal/httpapi/edge"
	"github.com/dotring/dotring/gateway/internal/problem"
)

// readParams are the parameters of a read.
type readParams struct {
	r             coordinator.Quorum
	timeout       time.Duration
	etag          string // empty: no sibling is picked
	conflictError bool
	explain       bool
}

// writeParams are the parameters of a write.
type writeParams struct {
	w       coordinator.Quorum
	timeout time.Duration
	sloppy  bool
}

// parseRead reads the query of a read. Errors wrap problem.ErrBadParameter.
func parseRead(raw string) (readParams, error) {
	p := readParams{timeout: edge.DefaultTimeout}
	var err error
	if p.r, err = edge.ParseQuorum("r", ""); err != nil || raw == "" {
		return p, err
	}
	seen := 0
	err = eachParam(raw, func(name, value string) (err error) {
		bit := 0
		switch name {
		case "r":
			bit = 1
			p.r, err = edge.ParseQuorum(name, value)
		case "timeout":
			bit = 2
			p.timeout, err = edge.ParseTimeout(value)
		case "etag":
			bit = 4
			p.etag = strings.TrimSuffix(strings.TrimPrefix(value, `"`), `"`)
		case "conflict":
			bit = 8
			if p.conflictError = value == "error"; !p.conflictError {
				err = fmt.Errorf("%w: conflict takes error only", problem.ErrBadParameter)
			}
		case "explain":
			bit = 16
			p.explain, err = parseBool(name, value)
		}
		return checkParam(&seen, bit, name, value, err)
	})
	return p, err
}

// parseWrite reads the query of a write. Errors wrap problem.ErrBadParameter.
func parseWrite(raw string) (writeParams, error) {
	p := writeParams{timeout: edge.DefaultTimeout, sloppy: true}
	var err error
	if p.w, err = edge.ParseQuorum("w", ""); err != nil || raw == "" {
		return p, err
	}
	seen := 0
	err = eachParam(raw, func(name, value string) (err error) {
		bit := 0
		switch name {
		case "w":
			bit = 1
			p.w, err = edge.ParseQuorum(name, value)
		case "timeout":
			bit = 2
			p.timeout, err = edge.ParseTimeout(value)
		case "sloppy":
			bit = 4
			p.sloppy, err = parseBool(name, value)
		}
		return checkParam(&seen, bit, name, value, err)
	})
	return p, err
}

// checkChange checks the query of a change: of the parameters that it takes each at most once, and none empty. What they say is for the
// service to read. Errors wrap problem.ErrBadParameter.
func checkChange(raw string, takes []string) error {
	seen := 0
	return eachParam(raw, func(name, value string) (err error) {
		bit := 1 << (slices.Index(takes, name) + 1)
		switch {
		case bit == 1:
			bit = 0
		case name == "dry_run" || name == "accept_loss":
			_, err = parseBool(name, value)
		case name == "weight":
			if _, err = strconv.ParseFloat(value, 64); err != nil {
				err = fmt.Errorf("%w: weight is no number", problem.ErrBadParameter)
			}
		}
		return checkParam(&seen, bit, name, value, err)
	})
}

// noParams refuses every parameter.
func noParams(raw string) error {
	return eachParam(raw, func(name, value string) error { return checkParam(new(int), 0, name, value, nil) })
}

// checkParam refuses a parameter that is unknown (bit 0), repeated or empty; else it returns err.
func checkParam(seen *int, bit int, name, value string, err error) error {
	switch {
	case bit == 0:
		return fmt.Errorf("%w: %.40q is not known here", problem.ErrBadParameter, name)
	case *seen&bit != 0:
		return fmt.Errorf("%w: %s is repeated", problem.ErrBadParameter, name)
	case value == "":
		return fmt.Errorf("%w: %s is empty", problem.ErrBadParameter, name)
	}
	*seen |= bit
	return err
}

func parseBool(name, value string) (bool, error) {
	switch value {
	case "1", "true":
		return true, nil
	case "0", "false":
		return false, nil
	default:
		return false, fmt.Errorf("%w: %s takes true or false", problem.ErrBadParameter, name)
	}
}

// eachParam calls fn for each parameter of a raw query, in order, until one is refused. The error of an escape that
// cannot be decoded wraps problem.ErrBadParameter.
func eachParam(raw string, fn func(name, value string) error) error {
	for raw != "" {
		var pair string
		pair, raw, _ = strings.Cut(raw, "&")
		if pair == "" {
			continue
		}
		name, value, _ := strings.Cut(pair, "=")
		name, err := unescapeQuery(name)
		if err != nil {
			return err
		}
		if value, err = unescapeQuery(value); err != nil {
			return err
		}
		if err := fn(name, value); err != nil {
			return err
		}
	}
	return nil
}

func unescapeQuery(s string) (string, error) {
	if !strings.ContainsAny(s, "%+") {
		return s, nil
	}
	out, err := url.QueryUnescape(s)
	if err != nil {
		return "", fmt.Errorf("%w: %.40q cannot be decoded", problem.ErrBadParameter, s)
	}
	return out, nil
}
