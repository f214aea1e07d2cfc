package bench

import (
	"os/exec"
	"strings"
	"testing"
)

// From ssm 1.80 and secretsmanager 1.50 on, AWS's clients describe all of their
// API in package variables, which every start of the program builds: 1.5 MB of
// memory, 2 ms, and 1.5 MB of the program, for two calls of each. So these two
// stay at the last releases without.
func TestNoClientBringsSchemasOfItsWholeAPI(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", "../../cmd/amiagent").Output()
	if err != nil {
		t.Fatal(err)
	}
	packages := strings.Fields(string(out))
	if len(packages) < 200 {
		t.Fatalf("only %d packages: the rule would hold of nothing", len(packages))
	}
	for _, p := range packages {
		if strings.HasPrefix(p, "github.com/aws/") && strings.HasSuffix(p, "/schemas") {
			t.Errorf("%s is linked", p)
		}
	}
}
