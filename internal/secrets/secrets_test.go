package secrets_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/amiagent/amiagent/internal/awsconf"
	"github.com/amiagent/amiagent/internal/diag"
	"github.com/amiagent/amiagent/internal/ec2sim"
	"github.com/amiagent/amiagent/internal/imds"
	"github.com/amiagent/amiagent/internal/secrets"
)

// begin is an account with secrets, and a reader with the role of an instance in it.
func begin(t *testing.T) (*ec2sim.Sim, *secrets.Reader) {
	t.Helper()
	sim := ec2sim.New(ec2sim.Config{
		Parameters: map[string]ec2sim.Parameter{
			"/web/password": {Type: "SecureString", Value: ec2sim.Versions{"old", "new"}},
			"plain":         {Value: ec2sim.Versions{"text"}},
		},
		Secrets: map[string]ec2sim.Versions{
			"web":  {`{"user": "app", "port": 5432}`},
			"text": {"not JSON"},
		},
	})
	srv, err := sim.Start("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { srv.Close() })
	env := map[string]string{}
	for _, kv := range srv.Env() {
		k, v, _ := strings.Cut(kv, "=")
		env[k] = v
	}
	get := func(name string) string { return env[name] }
	o, err := imds.FromEnv(get)
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := awsconf.Load(t.Context(), awsconf.Options{Env: get, IMDS: imds.New(o)})
	if err != nil {
		t.Fatal(err)
	}
	return sim, secrets.New(cfg.Config)
}

// tell reads a reference: its value, or its error with the hint.
func tell(ref string, values map[string]string, failed map[string]error) string {
	v, ok := values[ref]
	err := failed[ref]
	switch {
	case ok && err != nil:
		return fmt.Sprintf("both %q and %v", v, err)
	case ok:
		return v
	case err == nil:
		return "neither value nor error"
	}
	return "error: " + err.Error() + " | " + diag.Hint(err)
}

func TestRead(t *testing.T) {
	_, r := begin(t)
	want := map[string]string{
		"ssm:/web/password":       "new",
		"ssm:/web/password:1":     "old",
		"ssm:plain":               "text",
		"ssm:/none":               "error: there is no SSM parameter /none | `aws ssm get-parameter --name /none` in this account and region tells",
		"secretsmanager:web#user": "app",
		"secretsmanager:web#port": "5432",
		"secretsmanager:web":      `{"user": "app", "port": 5432}`,
		"secretsmanager:web#pass": `error: secretsmanager:web has no key "pass" | it has the keys port, user`,
		"secretsmanager:text":     "not JSON",
		"secretsmanager:text#x":   "error: cannot take the key x: secretsmanager:text is not a JSON object | ",
		"secretsmanager:none":     "error: ResourceNotFoundException: Secrets Manager can't find the specified secret. | ",
		"vault:x":                 `error: "vault:x" names no secret | `,
	}
	var refs []string
	for ref := range want {
		refs = append(refs, ref)
	}
	values, failed := r.Read(t.Context(), refs)
	for ref, want := range want {
		if got := tell(ref, values, failed); got != want {
			t.Errorf("%s:\ngot  %s\nwant %s", ref, got, want)
		}
	}
}

// Calls are few: a fleet that starts together shares the account's limits.
func TestManyAreReadInBatches(t *testing.T) {
	sim, r := begin(t)
	var refs []string
	for i := range 25 {
		sim.PutParameter(fmt.Sprintf("/many/%d", i), "SecureString", fmt.Sprint("value ", i))
		sim.PutSecret(fmt.Sprintf("many-%d", i), fmt.Sprint("value ", i))
		refs = append(refs, fmt.Sprintf("ssm:/many/%d", i), fmt.Sprintf("secretsmanager:many-%d", i))
	}
	values, failed := r.Read(t.Context(), refs)
	if len(values) != 50 || len(failed) != 0 {
		t.Errorf("%d values, failed: %v", len(values), failed)
	}
	for i := range 25 {
		for _, ref := range []string{"ssm:/many/", "secretsmanager:many-"} {
			if got := values[ref+fmt.Sprint(i)]; got != fmt.Sprint("value ", i) {
				t.Errorf("%s%d = %q", ref, i, got)
			}
		}
	}
	if n := sim.Count("ssm", ""); n != 3 {
		t.Errorf("%d calls of SSM, want 3", n)
	}
	if n := sim.Count("secretsmanager", ""); n != 2 {
		t.Errorf("%d calls of Secrets Manager, want 2", n)
	}
}

func TestRefusalsSayWhatToAllow(t *testing.T) {
	sim, r := begin(t)
	sim.SetFault(ec2sim.Fault{Service: "ssm", Do: ec2sim.Deny})
	sim.SetFault(ec2sim.Fault{Service: "secretsmanager", Do: ec2sim.Deny})
	values, failed := r.Read(t.Context(), []string{"ssm:plain", "secretsmanager:text"})
	for ref, action := range map[string]string{"ssm:plain": "ssm:GetParameters", "secretsmanager:text": "secretsmanager:GetSecretValue"} {
		got := tell(ref, values, failed)
		if !strings.HasPrefix(got, "error: AccessDeniedException: ") ||
			!strings.HasSuffix(got, " | allow "+action+" on it for the instance's role, and kms:Decrypt on its key") {
			t.Errorf("%s: %s", ref, got)
		}
	}
}

// Reading in batches is a permission of its own.
func TestWithoutTheBatchPermissionSecretsAreReadOneByOne(t *testing.T) {
	sim, r := begin(t)
	sim.SetFault(ec2sim.Fault{Service: "secretsmanager", Operation: "BatchGetSecretValue", Do: ec2sim.Deny})
	values, failed := r.Read(t.Context(), []string{"secretsmanager:text", "secretsmanager:web#user"})
	if values["secretsmanager:text"] != "not JSON" || values["secretsmanager:web#user"] != "app" || len(failed) != 0 {
		t.Errorf("values %v, failed %v", values, failed)
	}
}

func TestTheEndOfPatienceIsTheReason(t *testing.T) {
	sim, r := begin(t)
	sim.SetFault(ec2sim.Fault{Service: "ssm", Do: ec2sim.Hang})
	why := errors.New("no answer in 50ms")
	ctx, cancel := context.WithTimeoutCause(t.Context(), 50*time.Millisecond, why)
	defer cancel()
	if _, failed := r.Read(ctx, []string{"ssm:plain"}); !errors.Is(failed["ssm:plain"], why) {
		t.Errorf("failed: %v", failed)
	}
}
