package e2e

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/dotring/dotring/loadtest/localcluster"
)

// TestSchemathesis lets a stranger that knows nothing but the document try the API of a running cluster: it makes requests that the
// document allows and requests that it forbids, and holds every answer against it. Changes of who is a member are left out, since
// they would take the cluster apart, and what
// takes the bytes of a backup, which it cannot make up. make schemathesis installs it, and names its program in DOTRING_SCHEMATHESIS; DOTRING_EXAMPLES
// is how many requests it makes up for each operation at the most.
func TestSchemathesis(t *testing.T) {
	program := os.Getenv("DOTRING_SCHEMATHESIS")
	if program == "" {
		t.Skip("DOTRING_SCHEMATHESIS names no program: make schemathesis does")
	}
	examples := os.Getenv("DOTRING_EXAMPLES")
	if examples == "" {
		examples = "5"
	}
	document, err := filepath.Abs("../../openapi/openapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	config, err := filepath.Abs("testdata/schemathesis.toml")
	if err != nil {
		t.Fatal(err)
	}
	c := start(t, localcluster.Config{Nodes: 3, Gateways: 1})
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, "--config-file", config, "run", document, "--url", c.URL(c.Gateways[0]), "--phases", "examples,coverage,fuzzing",
		"--max-examples", examples, "--seed", "1", "--generation-deterministic", "--no-shrink",
		"--continue-on-failure", "--request-timeout", "70", "--warnings", "off", "--no-color",
		"--exclude-path-regex", `:(decommission|remove|replace|setWeight|abort|restore)$`)
	cmd.Dir = t.TempDir()
	began := time.Now()
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	t.Logf("%v\n%.2000s", time.Since(began), out[max(0, len(out)-1500):])
}
