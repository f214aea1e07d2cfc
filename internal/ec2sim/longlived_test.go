package ec2sim_test

import (
	"strings"
	"testing"
	"time"

	"github.com/amiagent/amiagent/internal/ec2sim"
)

// Credentials of a user's own choice are what metadata gives, and what signs.
func TestUseCredentials(t *testing.T) {
	i := launch(t, ec2sim.Config{Parameters: map[string]ec2sim.Parameter{"motd": {Value: ec2sim.Versions{"hello"}}}})
	old := i.Credentials()
	i.UseCredentials("AKIDEXAMPLE", "a-long-lived-secret")
	got := i.Credentials()
	equal(t, "access key", got.AccessKeyID, "AKIDEXAMPLE")
	equal(t, "session token", got.SessionToken, "")
	value, err := i.parameter(t, "motd")
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "parameter", value, "hello")
	equal(t, "metadata", i.Count("imds", "meta-data") > 0, true)
	if answer := i.send(t, wire{key: old, service: "ssm", region: "eu-west-1", at: time.Now()}); !strings.Contains(answer, "UnrecognizedClient") {
		t.Errorf("the old credentials are still good: %s", answer)
	}
}
