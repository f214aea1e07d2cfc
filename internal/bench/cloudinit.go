package bench

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"time"
)

// stages are the four services of cloud-init 22.4 in the order of a boot, by
// the name that status.json has for them, with the commands of their ExecStart.
var stages = []struct {
	name string
	args []string
}{
	{"init-local", []string{"init", "--local"}},
	{"init", []string{"init"}},
	{"modules-config", []string{"modules", "--mode=config"}},
	{"modules-final", []string{"modules", "--mode=final"}},
}

// forget makes cloud-init take the next run for another boot of the same
// instance: /run does not outlive a boot, but for what the generator has made
// by the time the stages begin. What is kept per instance stays.
const forget = `find /run/cloud-init -mindepth 1 -maxdepth 1 ! -name cloud.cfg ! -name enabled ! -name 'ds-identify*' -exec rm -rf {} +
rm -f /var/lib/cloud/instance/boot-finished`

func cloudInit(ctx context.Context) (Cloud, error) {
	c := Cloud{Stages: map[string]time.Duration{}}
	if _, err := output(ctx, "sh", "-ec", forget); err != nil {
		return c, err
	}
	for _, s := range stages {
		cmd := exec.CommandContext(ctx, "cloud-init", s.args...)
		began := time.Now()
		out, err := cmd.CombinedOutput()
		took := time.Since(began)
		if err != nil {
			return c, fmt.Errorf("cannot run cloud-init %v: %w\n%s", s.args, err, out)
		}
		c.Stages[s.name] = took
		c.Wall += took
		c.CPU += cpu(cmd.ProcessState)
	}
	return c, nil
}

// cloudBoot reads what each stage took in the boot that was.
func cloudBoot() (map[string]time.Duration, error) {
	b, err := os.ReadFile("/run/cloud-init/status.json")
	if err != nil {
		return nil, fmt.Errorf("cannot see cloud-init's boot: %w", err)
	}
	return parseStatus(b)
}

func parseStatus(b []byte) (map[string]time.Duration, error) {
	type stage struct {
		Start, Finished *float64
		Errors          []string
	}
	var doc struct {
		V1 map[string]json.RawMessage
	}
	if err := json.Unmarshal(b, &doc); err != nil {
		return nil, fmt.Errorf("cannot read cloud-init's status: %w", err)
	}
	took := map[string]time.Duration{}
	for _, s := range stages {
		var got stage
		if err := json.Unmarshal(doc.V1[s.name], &got); err != nil || got.Start == nil || got.Finished == nil {
			return nil, fmt.Errorf("cannot read cloud-init's status: %s has not ended", s.name)
		}
		if len(got.Errors) > 0 {
			return nil, fmt.Errorf("cannot compare with cloud-init: %s: %s", s.name, got.Errors[0])
		}
		took[s.name] = time.Duration((*got.Finished - *got.Start) * float64(time.Second))
	}
	return took, nil
}
