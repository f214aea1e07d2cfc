package bench

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/amiagent/amiagent/agent"
	"github.com/amiagent/amiagent/internal/facts"
	"github.com/amiagent/amiagent/internal/layers"
	"github.com/amiagent/amiagent/internal/step/kinds"
)

// planned are the steps that the agent makes of fifty.yaml.
func planned(t *testing.T) []string {
	t.Helper()
	digests := map[string]string{}
	for _, m := range digestOf.FindAllStringSubmatch(fifty, -1) {
		digests[m[1]] = "sha256:" + strings.Repeat("0", 64)
	}
	known := facts.New()
	known.Set(facts.InstanceID, "i-1", facts.Launch, "test")
	known.Set(facts.TagPrefix+"Role", "web", facts.Launch, "test")
	known.Tags = facts.Tags{State: facts.TagsPresent}
	file := filepath.Join(t.TempDir(), "facts.json")
	f, err := os.Create(file)
	if err == nil {
		err = known.Capture(f)
	}
	if err != nil {
		t.Fatal(err)
	}
	text := manifest("/dev/loop0", digests)
	a, err := agent.New(agent.Options{Root: t.TempDir(), FactsFile: file,
		Documents: []layers.Document{{File: "fifty.yaml", Data: []byte(text)}}})
	if err != nil {
		t.Fatal(err)
	}
	p, err := a.Plan(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, s := range p.Steps {
		ids = append(ids, s.ID)
	}
	if len(p.Probes) != 5 {
		t.Errorf("probes %q, want one of each kind", p.Probes)
	}
	return ids
}

func TestEveryOneOfFiftyStepsIsChangedOnce(t *testing.T) {
	want := planned(t)
	var have []string
	for _, m := range mutations {
		have = append(have, m.step)
	}
	slices.Sort(want)
	slices.Sort(have)
	if len(want) != 50 || !slices.Equal(want, have) {
		t.Errorf("%d steps:\n%q\nchanged by hand:\n%q", len(want), want, have)
	}
}

// elsewhere are the kinds that have nothing to hold on the machine of the bench,
// whose package sources are one local repository without releases.
var elsewhere = []string{"pin"}

func TestThereAreStepsOfAllKinds(t *testing.T) {
	ids := planned(t)
	for _, k := range kinds.All() {
		if !slices.Contains(elsewhere, k.Name) && !slices.ContainsFunc(ids, func(id string) bool { return strings.HasPrefix(id, k.Name+".") }) {
			t.Errorf("no step of the kind %s", k.Name)
		}
	}
}

// What is changed by hand is shell, and so are the scripts: all of it parses.
func TestShellTextsParse(t *testing.T) {
	texts := map[string]string{"check.sh": checkText, "keep.sh": keepText, "forget": forget}
	for _, m := range mutations {
		texts[m.step] = m.do
	}
	for name, text := range texts {
		if out, err := exec.Command("sh", "-nc", text).CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
}

// The script reads no other file than keep.sh writes.
func TestTheScriptReadsWhatWasWrittenDown(t *testing.T) {
	var read, written []string
	for _, m := range regexp.MustCompile(`"\$kept/(\w+)"`).FindAllStringSubmatch(checkText, -1) {
		read = append(read, m[1])
	}
	for _, m := range regexp.MustCompile(`>(\w+)`).FindAllStringSubmatch(keepText, -1) {
		written = append(written, m[1])
	}
	slices.Sort(read)
	slices.Sort(written)
	written = slices.DeleteFunc(slices.Compact(written), func(s string) bool { return s == "2" })
	if read = slices.Compact(read); !slices.Equal(read, written) {
		t.Errorf("reads %q, written are %q", read, written)
	}
}

func TestMemoryOfAProcess(t *testing.T) {
	m := parseMemory("Name:\tx\nVmHWM:\t   20 kB\nVmRSS:\t   12 kB\nRssAnon:\t    4 kB\nRssFile:\t    8 kB\nThreads:\t9\n")
	if m != (Memory{Resident: 12 << 10, Anon: 4 << 10, File: 8 << 10, Peak: 20 << 10}) {
		t.Errorf("%+v", m)
	}
	own, err := memoryOf("self")
	if err != nil || own.Resident < 1<<20 || own.Peak < own.Resident {
		t.Errorf("%+v, %v", own, err)
	}
	if _, err := memoryOf("0"); err == nil || !strings.HasPrefix(err.Error(), "cannot see the memory of process 0: ") {
		t.Error(err)
	}
}

func TestStatusOfCloudInit(t *testing.T) {
	text := func(final string) []byte {
		return []byte(`{"v1": {"datasource": "DataSourceEc2", "stage": null,
		"init-local": {"errors": [], "start": 1.5, "finished": 2.0}, "init": {"errors": [], "start": 3, "finished": 3.25},
		"modules-config": {"errors": [], "start": 4, "finished": 4.125}, "modules-final": ` + final + `}}`)
	}
	got, err := parseStatus(text(`{"errors": [], "start": 5, "finished": 6}`))
	if err != nil || got["init-local"] != 500*time.Millisecond || got["init"] != 250*time.Millisecond || got["modules-final"] != time.Second {
		t.Errorf("%v, %v", got, err)
	}
	for final, want := range map[string]string{
		`{"errors": [], "start": 5, "finished": null}`:  "cannot read cloud-init's status: modules-final has not ended",
		`{"errors": ["no"], "start": 5, "finished": 6}`: "cannot compare with cloud-init: modules-final: no",
		`{`: "cannot read cloud-init's status: ",
	} {
		if _, err := parseStatus(text(final)); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%s: %v, want %s", final, err, want)
		}
	}
}
