package ctl

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"
)

const (
	// watchShortest and watchLongest bound the time between two looks of a live view.
	watchShortest = 100 * time.Millisecond
	watchLongest  = time.Hour
	// watchAnswer is how long a look waits for its answer, where no timeout is given: whoever looks on should soon see that none comes.
	watchAnswer = 3 * time.Second
	// watchPause is the longest pause between two looks at a gateway that is away, where the interval is not longer.
	watchPause = 5 * time.Second
	// watchPatience is how long a gateway may be away before a live view ends.
	watchPatience = time.Minute
)

// watchFlags are the flags of commands that have a live view.
type watchFlags struct {
	Watch    bool          `help:"Look again and again, until Ctrl-C: in place on a terminal, else one text, or with --output json one line, after the other."`
	Interval time.Duration `help:"With --watch, the time from one look to the next, 100ms to 1h. Default: 1s." default:"1s" placeholder:"DURATION"`
}

// view is what one look found: as it came, and for people.
type view struct {
	body []byte
	text string
}

// liveText is the text of a live view's help.
const liveText = `With --watch a gateway that goes away is tried again for a minute; that is shown on a terminal, else told on stderr.`

// show calls look as often as the flags say: once, or again and again until ctx ends, which is no error. look is given how
// long to wait for the answer, and whether what it returns is for a live view on a terminal.
func (s *session) show(ctx context.Context, w watchFlags, what string, look func(ctx context.Context, wait time.Duration, live bool) (view, error)) error {
	if !w.Watch {
		v, err := look(ctx, 0, false)
		switch {
		case err != nil:
			return err
		case s.json:
			return s.printRawJSON(v.body)
		default:
			return s.print(v.text)
		}
	}
	if w.Interval < watchShortest || w.Interval > watchLongest {
		return usageError(fmt.Sprintf("--interval must be from %v to %v", watchShortest, watchLongest))
	}
	s.lines = true
	wait := watchAnswer
	if s.client.timeout > 0 {
		wait = 0 // what follows from the timeout
	}
	d := &display{s: s, every: w.Interval, what: what, inPlace: s.env.StdoutTerminal && !s.json && s.env.Getenv("TERM") != "dumb"}
	err := d.run(ctx, func() (view, error) { return look(ctx, wait, d.inPlace) })
	return errors.Join(d.close(), err)
}

// display is a live view. It belongs to one goroutine.
type display struct {
	s       *session
	every   time.Duration
	what    string
	inPlace bool // on a terminal that is drawn anew, not added to
	open    bool // the terminal shows its other screen
	last    view
	told    time.Time // when last was told; zero before the first
	away    outage
}

// outage is a gateway that does not answer. The zero value is one that does.
type outage struct {
	since time.Time // the first look that failed began
	tries int
	why   string
}

// next returns the outage when one more look, begun at began, has failed at now, and after what pause to look again; over says
// that it is to be borne no longer.
func (o outage) next(began, now time.Time, why string, every time.Duration) (_ outage, pause time.Duration, over bool) {
	if o.tries == 0 {
		o.since = began
	}
	o.tries, o.why = o.tries+1, why
	pause = every
	for i := 1; i < o.tries && pause < watchPause; i++ {
		pause = min(2*pause, watchPause)
	}
	return o, pause, now.Sub(o.since) >= watchPatience
}

// passing returns why there was no answer, where one may come when asked again.
func passing(err error) (why string, _ bool) {
	var f *failure
	if !errors.As(err, &f) || f.status != 0 && f.status != http.StatusTooManyRequests && f.status < 500 {
		return "", false
	}
	why = f.title
	if f.detail != "" {
		why += ": " + f.detail
	}
	why, _, _ = strings.Cut(why, "\n")
	return escapeText(why), true
}

// run looks until ctx ends. The first look must succeed: what was never there is not waited for.
func (d *display) run(ctx context.Context, look func() (view, error)) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		}
		began := time.Now()
		v, err := look()
		now := time.Now()
		pause := max(d.every-now.Sub(began), watchShortest)
		switch why, again := passing(err); {
		case ctx.Err() != nil:
			return nil
		case err == nil:
			err = d.answered(v, now)
		case d.told.IsZero() || !again:
			return err
		default:
			var over bool
			first := d.away.tries == 0
			if d.away, pause, over = d.away.next(began, now, why, d.every); over {
				return err
			}
			err = d.unanswered(first, now)
		}
		if err != nil {
			return err
		}
		timer.Reset(pause)
	}
}

// answered shows what a look found.
func (d *display) answered(v view, now time.Time) error {
	if d.away.tries > 0 && !d.inPlace {
		complain(d.s.env.Stderr, "dotringctl: the gateway answers again, after %v\n", now.Sub(d.away.since).Round(time.Second))
	}
	d.last, d.told, d.away = v, now, outage{}
	switch {
	case d.inPlace:
		return d.draw(now)
	case d.s.json:
		return d.s.printRawJSON(v.body)
	default:
		return d.s.print(utc(now) + "\n" + v.text + "\n")
	}
}

// unanswered shows that a look found nothing.
func (d *display) unanswered(first bool, now time.Time) error {
	if d.inPlace {
		return d.draw(now)
	}
	if first {
		complain(d.s.env.Stderr, "dotringctl: %s. It is tried again for %v.\n", d.away.why, watchPatience)
	}
	return nil
}

// The other screen of a terminal, which is left as if nothing had been.
const (
	otherScreen = "\x1b[?1049h"
	firstScreen = "\x1b[?1049l"
)

// draw shows the last answer in place of what the terminal shows.
func (d *display) draw(now time.Time) error {
	columns, rows := 0, 0
	if d.s.env.Size != nil {
		columns, rows = d.s.env.Size()
	}
	text := frame(liveLines(d.s.out, d.what+" of "+d.s.client.base.Redacted(), d.every, d.last.text, d.told, d.away, now), columns, rows)
	if !d.open {
		d.open, text = true, otherScreen+text
	}
	return d.s.print(text)
}

// close leaves the last answer on the screen that was there before.
func (d *display) close() error {
	if !d.open {
		return nil
	}
	return d.s.print(firstScreen + d.last.text)
}

// liveLines returns the lines of a live view: what it is, what is wrong with the gateway, and the text it told.
func liveLines(p palette, what string, every time.Duration, text string, told time.Time, away outage, now time.Time) []string {
	lines := []string{p.paint(faint, fmt.Sprintf("%s every %v, at %s; Ctrl-C ends", escapeText(what), every, utc(now)))}
	if away.tries > 0 {
		lines = append(lines, p.paint(bad, fmt.Sprintf("%s failed, for %v: %s", plural(away.tries, "look"), now.Sub(away.since).Round(time.Second), away.why)),
			p.paint(doubtful, fmt.Sprintf("What follows was told at %s. This ends when all looks fail for %v.", utc(told), watchPatience)))
	}
	return append(append(lines, ""), strings.Split(strings.TrimSuffix(text, "\n"), "\n")...)
}

// frame returns what makes a terminal of that size show lines and nothing else: those that are too long are cut, and those
// too many counted. 0 is a size that is not known.
func frame(lines []string, columns, rows int) string {
	if rows > 1 && len(lines) > rows {
		more := len(lines) - (rows - 1)
		lines = append(lines[:rows-1:rows-1], fmt.Sprintf("… and %s more", plural(more, "line")))
	}
	var b strings.Builder
	b.WriteString("\x1b[H") // to the corner
	for i, line := range lines {
		if i > 0 {
			b.WriteByte('\n')
		}
		if columns > 1 {
			line = fit(line, columns-1) // in the last column some terminals already stand on the next line
		}
		b.WriteString(line + "\x1b[K") // and nothing behind it
	}
	b.WriteString("\x1b[J") // nor below
	return b.String()
}

// fit cuts a line, which may have colours, so that it takes at most so many columns.
func fit(line string, columns int) string {
	width, coloured := 0, false
	for i := 0; i < len(line); {
		if strings.HasPrefix(line[i:], "\x1b[") {
			end := strings.IndexByte(line[i:], 'm')
			if end < 0 {
				return line[:i]
			}
			i, coloured = i+end+1, true
			continue
		}
		size := len(line) - i
		for n := range line[i:] {
			if n > 0 {
				size = n
				break
			}
		}
		if width += displayWidth(line[i : i+size]); width > columns {
			if coloured {
				return line[:i] + "\x1b[0m"
			}
			return line[:i]
		}
		i += size
	}
	return line
}

// utc returns a time for people.
func utc(t time.Time) string { return t.UTC().Format(time.DateOnly + " " + time.TimeOnly + "Z") }

// barCells is the length of a bar in letters.
const barCells = 20

// bar draws how much of total is done; empty where that is not known.
func bar(done, total uint64) string {
	if total == 0 {
		return ""
	}
	full := int(float64(min(done, total)) / float64(total) * barCells)
	return "[" + strings.Repeat("#", full) + strings.Repeat(".", barCells-full) + "]"
}
