// Package ctl is the operator's command line: it talks HTTP to a gateway, and prints for people or for scripts.
package ctl

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/alecthomas/kong"
)

// Exit codes. They are stable: scripts rely on them.
const (
	ExitOK       = 0
	ExitError    = 1 // the gateway refused or failed, or could not be reached
	ExitUsage    = 2 // the command line makes no sense
	ExitNotFound = 3 // get: no value
	ExitConflict = 4 // get: several siblings
	ExitInDoubt  = 5 // put, delete: whether the write was or will be applied is not known
	ExitNo       = 6 // can-stop: the node must not stop now
)

// Env is what a command sees of its process. Run uses it from one goroutine and closes nothing.
type Env struct {
	Args           []string // without the program's name
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	// Whether each stream is a terminal.
	StdinTerminal, StdoutTerminal, StderrTerminal bool
	// Size returns how many columns and rows the terminal behind Stdout has; nil, or 0, where that is not known.
	Size func() (columns, rows int)
	// Getenv is asked for NO_COLOR, TERM and DOTRING_TOKEN alone; flags read the environment of the process.
	Getenv func(string) string
	// Random names requests; crypto/rand outside tests.
	Random  io.Reader
	Version string
}

const defaultGateway = "http://127.0.0.1:8080"

const description = `Look into a Dotring cluster, and read and write its keys, through any of its gateways.

Exit codes: 0 done, 1 the gateway refused, failed or cannot be reached, 2 wrong usage, 3 not found (get), 4 conflict: ` +
	`several siblings (get), 5 in doubt: a write may or may not have been applied (put, delete), 6 no: the node must not stop now (can-stop). Values go to stdout as ` +
	`they are stored; errors and remarks go to stderr.

Examples:

    dotringctl status
    dotringctl put colour blue
    dotringctl get colour
    dotringctl key colour
    dotringctl --gateway http://10.0.0.7:8080 nodes --output json`

// options are the flags that every command takes.
type options struct {
	Gateway string           `help:"URL of a gateway. Default: http://127.0.0.1:8080." env:"DOTRING_GATEWAY" placeholder:"URL"`
	CA      string           `name:"ca" help:"Authority of the gateway's certificate, PEM. Default: those the system trusts." env:"DOTRING_CA" placeholder:"FILE" complete:"file"`
	Token   string           `name:"token-file" help:"File with the token to send. Default: the variable DOTRING_TOKEN, if set." env:"DOTRING_TOKEN_FILE" placeholder:"FILE" complete:"file"`
	Output  string           `short:"o" help:"How to print. Default: table." enum:"table,json" default:"table" env:"DOTRING_OUTPUT" placeholder:"table|json"`
	Timeout *time.Duration   `help:"Time the cluster has for a request, up to 60s. Default: 2s." env:"DOTRING_TIMEOUT" placeholder:"DURATION"`
	Color   string           `help:"Colour: on a terminal unless NO_COLOR is set (auto), always or never." enum:"auto,always,never" default:"auto" env:"DOTRING_COLOR" placeholder:"auto|always|never"`
	Version kong.VersionFlag `help:"Print the version and exit."`
}

type commands struct {
	options `group:"Flags of every command:"`

	Status statusCommand `cmd:"" help:"Show the cluster in short: layout, members, quorums, what it can promise, warnings."`
	Nodes  nodesCommand  `cmd:"" help:"List the storage nodes."`
	Layout layoutCommand `cmd:"" help:"Show who owns what, and how far a change of that has come."`
	Key    keyCommand    `cmd:"" help:"Show what each replica of a key holds, side by side."`
	Get    getCommand    `cmd:"" help:"Write the value of a key to stdout."`
	Put    putCommand    `cmd:"" help:"Store a value under a key."`
	Delete deleteCommand `cmd:"" help:"Delete a key."`
	Why    whyCommand    `cmd:"" help:"Say why the tombstone of a deleted key is still there."`
	Tasks  tasksCommand  `cmd:"" help:"List what runs besides requests: hints to deliver, comparisons between owners."`
	Hot    hotCommand    `cmd:"" help:"List the keys that take the most requests."`
	Repair repairCommand `cmd:"" help:"Bring every copy up to date, and answer when that is done."`

	Decommission decommissionCommand `cmd:"" help:"Have a living node hand over what it holds, and leave."`
	Remove       removeCommand       `cmd:"" help:"Take out a node that is gone for good, with its data."`
	Replace      replaceCommand      `cmd:"" help:"Give the place of a node to one that is no member."`
	Weight       weightCommand       `cmd:"" help:"Change a node's share of the data."`
	Abort        abortCommand        `cmd:"" help:"Give up the change of the layout that is under way."`
	CanStop      canStopCommand      `cmd:"" help:"Say whether a node may stop now, and what would be short of copies."`

	List listCommand `cmd:"" help:"List keys by prefix."`

	Doctor  doctorCommand  `cmd:"" help:"Look for what needs an operator, and say what to do."`
	Backup  backupCommand  `cmd:"" help:"Write what every node holds into a directory, without stopping writes; or verify that."`
	Restore restoreCommand `cmd:"" help:"Bring a backup back, into a cluster of any size."`
	Export  exportCommand  `cmd:"" help:"Write keys and values as lines of JSON."`
	Import  importCommand  `cmd:"" help:"Store keys and values from lines of JSON."`

	Cert    certCommand    `cmd:"" help:"Make certificates."`
	Token   tokenCommand   `cmd:"" help:"Make a token and its access rules."`
	Keyring keyringCommand `cmd:"" help:"Make and change the keys that encrypt gossip."`

	Completion completionCommand `cmd:"" help:"Print the script that completes command lines in a shell."`
}

// session is what a command works with.
type session struct {
	env      Env
	json     bool
	lines    bool // JSON is printed on one line
	client   *client
	out, err palette // colours of stdout and of stderr
}

// exitRequest is how a flag such as --help leaves the parser.
type exitRequest int

// newParser returns the parser that fills cmd. It panics with an exitRequest where a flag such as --help leaves it.
func newParser(cmd *commands, env Env) (*kong.Kong, error) {
	return kong.New(cmd, kong.Name("dotringctl"), kong.Description(description), kong.Vars{"version": env.Version},
		kong.Writers(env.Stdout, env.Stderr), kong.ConfigureHelp(kong.HelpOptions{Compact: true, WrapUpperBound: 100}),
		kong.Exit(func(code int) { panic(exitRequest(code)) }))
}

// Run runs one command and returns the exit code of the process. It returns early when ctx ends.
func Run(ctx context.Context, env Env) (code int) {
	if len(env.Args) > 0 && env.Args[0] == completeVerb {
		return complete(ctx, env, completeTime)
	}
	var cmd commands
	parser, err := newParser(&cmd, env)
	if err != nil {
		complain(env.Stderr, "dotringctl: %v\n", err)
		return ExitError
	}
	defer func() {
		if p := recover(); p != nil {
			request, ok := p.(exitRequest)
			if !ok {
				panic(p)
			}
			code = int(request)
		}
	}()
	s := &session{env: env}
	parse, err := parser.Parse(env.Args)
	if err == nil {
		err = s.configure(&cmd.options)
	}
	if err != nil {
		help := "dotringctl --help"
		if parse != nil && parse.Selected() != nil {
			help = parse.Selected().FullPath() + " --help"
		}
		var pe *kong.ParseError
		if errors.As(err, &pe) && pe.Context != nil && pe.Context.Selected() != nil {
			help = pe.Context.Selected().FullPath() + " --help"
		}
		complain(env.Stderr, "dotringctl: %s\nRun %q for what is possible.\n", escapeText(err.Error()), help)
		return ExitUsage
	}
	parse.BindTo(ctx, (*context.Context)(nil))
	return s.report(parse.Run(s), parse.Selected().FullPath())
}

// configure takes over the flags of every command. Its errors are those of the user.
func (s *session) configure(o *options) error {
	if o.Gateway == "" { // an empty variable is as good as none
		o.Gateway = defaultGateway
	}
	base, err := parseGateway(o.Gateway)
	if err != nil {
		return err
	}
	const longest = time.Minute
	var timeout time.Duration
	if o.Timeout != nil {
		if timeout = *o.Timeout; timeout <= 0 || timeout > longest {
			return fmt.Errorf("--timeout must be above 0 and at most %v", longest)
		}
	}
	s.json = o.Output == "json"
	authority, err := trust(o.CA)
	if err != nil {
		return err
	}
	secret, err := token(o.Token, s.env.Getenv)
	if err != nil {
		return err
	}
	s.client = newClient(base, timeout, s.env.Version)
	s.client.token = secret
	s.client.tls(authority)
	s.out.on = useColour(o.Color, s.env.StdoutTerminal, s.env.Getenv)
	s.err.on = useColour(o.Color, s.env.StderrTerminal, s.env.Getenv)
	return nil
}

// report prints what went wrong, if anything, and returns the exit code.
func (s *session) report(err error, command string) int {
	var (
		code  exitCode
		usage usageError
		f     *failure
	)
	switch {
	case err == nil:
		return ExitOK
	case errors.As(err, &code):
		return int(code)
	case errors.As(err, &usage):
		complain(s.env.Stderr, "dotringctl: %s\nRun %q for what is possible.\n", escapeText(usage.Error()), command+" --help")
		return ExitUsage
	case !errors.As(err, &f):
		f = &failure{code: ExitError, title: err.Error()}
	}
	complain(s.env.Stderr, "%s", f.text(s.err))
	if s.json {
		if err := s.printJSON(f.object()); err != nil {
			complain(s.env.Stderr, "dotringctl: %v\n", err)
		}
	}
	return f.code
}

// complain writes to stderr. Where that fails there is no one left to tell.
func complain(w io.Writer, format string, args ...any) { _, _ = fmt.Fprintf(w, format, args...) }

// print writes text to stdout.
func (s *session) print(text string) error {
	if _, err := io.WriteString(s.env.Stdout, text); err != nil {
		return fmt.Errorf("write to stdout: %w", err)
	}
	return nil
}

// printJSON writes v as JSON to stdout.
func (s *session) printJSON(v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode JSON: %w", err)
	}
	return s.printRawJSON(b)
}

// printRawJSON writes JSON that came from a gateway, indented or on one line, with control characters escaped.
func (s *session) printRawJSON(b []byte) error {
	tidy := tidyJSON
	if s.lines {
		tidy = lineJSON
	}
	text, err := tidy(b)
	if err != nil {
		return &failure{code: ExitError, title: "the answer is no JSON", detail: err.Error(), hint: hintNotAGateway}
	}
	return s.print(text)
}

// exitCode is the error of a command that has told everything, and only has a code left.
type exitCode int

func (c exitCode) Error() string { return fmt.Sprintf("exit code %d", int(c)) }

// usageError is the error of a command line that makes no sense.
type usageError string

func (e usageError) Error() string { return string(e) }

func useColour(when string, terminal bool, getenv func(string) string) bool {
	switch when {
	case "always":
		return true
	case "never":
		return false
	default:
		return terminal && getenv("NO_COLOR") == "" && getenv("TERM") != "dumb"
	}
}

// examples lays out the examples of a command's help.
func examples(lines ...string) string {
	return "Examples:\n\n    " + strings.Join(lines, "\n    ")
}
