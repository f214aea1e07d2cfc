package probe_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/amiagent/amiagent/internal/probe"
	"github.com/amiagent/amiagent/internal/report"
)

// The stories below ask for real files, so that time can be made up.

type flag struct {
	*testing.T
	path string
}

func (f flag) up() {
	f.Helper()
	if err := os.WriteFile(f.path, nil, 0o600); err != nil {
		f.Fatal(err)
	}
}

func (f flag) down() {
	f.Helper()
	if err := os.Remove(f.path); err != nil {
		f.Fatal(err)
	}
}

func newFlag(t *testing.T, e probe.Env, name string) flag {
	return flag{t, filepath.Join(e.Host.Root(), name)}
}

func line(probes []report.Probe) string {
	var words []string
	for _, p := range probes {
		state := "ok"
		if !p.OK {
			state = "bad"
			if p.Error == "" {
				state = "?"
			}
		}
		words = append(words, p.Name+":"+state)
	}
	return strings.Join(words, " ")
}

func TestReadyComesSoonAfterTheServerDoes(t *testing.T) {
	e := env(t)
	synctest.Test(t, func(t *testing.T) {
		f := newFlag(t, e, "up")
		time.AfterFunc(100*time.Millisecond, f.up)
		start := time.Now()
		got, err := probe.Prove(t.Context(), e, must(t, `file: {path: /up}`), nil)
		took := time.Since(start)
		if err != nil || line(got) != "file:ok" || got[0].Took != took || got[0].Error != "" {
			t.Errorf("%+v, %v", got, err)
		}
		if took > 200*time.Millisecond { // not a whole `every`
			t.Errorf("seen %v after the start, it was up after 100ms", took)
		}
	})
}

func TestPatienceEndsWithTheLastAnswer(t *testing.T) {
	e := env(t)
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		got, err := probe.Prove(t.Context(), e, must(t, `
file: {path: /never, within: 10s}
late: {type: file, path: /later, within: 3s}
`), nil)
		want := "probe file: file /never: is not there, for 10s\nprobe late: file /later: is not there, for 3s"
		if err == nil || err.Error() != want || time.Since(start) != 10*time.Second {
			t.Errorf("after %v: %v", time.Since(start), err)
		}
		if line(got) != "file:bad late:bad" || got[1].Error != "file /later: is not there, for 3s" || got[0].Kind != "file" || got[1].Kind != "file" {
			t.Errorf("%+v", got)
		}
	})
}

func TestItMustHoldWithoutABreak(t *testing.T) {
	e := env(t)
	synctest.Test(t, func(t *testing.T) {
		f := newFlag(t, e, "up")
		f.up()
		time.AfterFunc(1500*time.Millisecond, f.down)
		time.AfterFunc(2500*time.Millisecond, f.up)
		start := time.Now()
		_, err := probe.Prove(t.Context(), e, must(t, `file: {path: /up, for: 3s}`), nil)
		if took := time.Since(start); err != nil || took < 5500*time.Millisecond || took > 7*time.Second {
			t.Errorf("after %v: %v", took, err)
		}
	})
	synctest.Test(t, func(t *testing.T) { // it held, but not long enough
		f := newFlag(t, e, "late")
		time.AfterFunc(4*time.Second, f.up)
		_, err := probe.Prove(t.Context(), e, must(t, `file: {path: /late, for: 3s, within: 6s}`), nil)
		if err == nil || !strings.HasPrefix(err.Error(), "probe file: held for 1.") || !strings.HasSuffix(err.Error(), "s of 3s when 6s were over") {
			t.Errorf("%v", err)
		}
	})
}

func TestProgressIsTold(t *testing.T) {
	e := env(t)
	synctest.Test(t, func(t *testing.T) {
		a, b := newFlag(t, e, "a"), newFlag(t, e, "b")
		time.AfterFunc(2*time.Second, b.up)
		time.AfterFunc(5*time.Second, a.up)
		var told []string
		_, err := probe.Prove(t.Context(), e, must(t, "a: {type: file, path: /a}\nb: {type: file, path: /b}"),
			func(p []report.Probe) { told = append(told, line(p)) })
		got := strings.Join(told, ", ")
		got = strings.Replace(got, "a:? b:bad", "a:bad b:?", 1) // either may be first
		if err != nil || got != "a:bad b:?, a:bad b:bad, a:bad b:ok, a:ok b:ok" {
			t.Errorf("told %s, %v", got, err)
		}
	})
}

func TestTheDeadlineOfTheLaunchEndsEveryProbe(t *testing.T) {
	e := env(t)
	cause := errors.New("the launch's deadline passed")
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeoutCause(t.Context(), 2*time.Second, cause)
		defer cancel()
		start := time.Now()
		got, err := probe.Prove(ctx, e, must(t, `file: {path: /never}`), nil)
		if !errors.Is(err, cause) || time.Since(start) != 2*time.Second || got[0].OK {
			t.Errorf("after %v: %v", time.Since(start), err)
		}
	})
}

func TestAHangingServerIsToldAsSuch(t *testing.T) {
	url := serve(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	_, err := probe.Prove(t.Context(), probe.Env{}, must(t, fmt.Sprintf(`http: {url: %q, within: 50ms}`, url)), nil)
	if want := "probe http: GET " + url + ": no answer within 50ms"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	// Cut off by the end of patience, the answer before says more.
	n := 0
	url = serve(t, func(w http.ResponseWriter, r *http.Request) {
		if n++; n == 1 {
			w.WriteHeader(500)
			return
		}
		<-r.Context().Done()
	})
	_, err = probe.Prove(t.Context(), probe.Env{}, must(t, fmt.Sprintf(`http: {url: %q, within: 80ms}`, url)), nil)
	if want := "probe http: GET " + url + ": 500 Internal Server Error (want 200), for 80ms"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestNoProbesHoldAtOnce(t *testing.T) {
	if got, err := probe.Prove(t.Context(), probe.Env{}, nil, nil); err != nil || len(got) != 0 {
		t.Errorf("%v, %v", got, err)
	}
}

// watch runs a watch over made-up time: script changes the machine, and what was told comes back.
func watch(t *testing.T, e probe.Env, text string, first []report.Probe, script func()) string {
	t.Helper()
	var told []string
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	start := time.Now()
	wg.Go(func() {
		probe.Watch(ctx, e, must(t, text), first, func(p []report.Probe) {
			told = append(told, fmt.Sprintf("%v %s", time.Since(start), line(p)))
		})
	})
	script()
	cancel()
	wg.Wait()
	return strings.Join(told, ", ")
}

func TestOneBadAnswerIsNoNewsTwoAre(t *testing.T) {
	e := env(t)
	synctest.Test(t, func(t *testing.T) {
		f := newFlag(t, e, "up")
		f.up()
		got := watch(t, e, `file: {path: /up}`, nil, func() {
			time.Sleep(2500 * time.Millisecond)
			f.down() // bad at 3s
			time.Sleep(time.Second)
			f.up() // good again at 4s: no news
			time.Sleep(time.Second)
			f.down() // bad at 5s and 6s: news
			time.Sleep(3 * time.Second)
			f.up() // good at 8s: news at once
			time.Sleep(2 * time.Second)
		})
		if got != "6s file:bad, 8s file:ok" {
			t.Errorf("told %s", got)
		}
	})
}

func TestFallAndRiseAreTheManifests(t *testing.T) {
	e := env(t)
	synctest.Test(t, func(t *testing.T) {
		f := newFlag(t, e, "up")
		got := watch(t, e, `file: {path: /up, every: 2s, fall: 1, rise: 3}`, nil, func() {
			time.Sleep(3 * time.Second)
			f.up()
			time.Sleep(20 * time.Second)
		})
		if got != "2s file:bad, 8s file:ok" {
			t.Errorf("told %s", got)
		}
	})
}

func TestAWatchGoesOnFromWhatWasKnown(t *testing.T) {
	e := env(t)
	synctest.Test(t, func(t *testing.T) {
		f := newFlag(t, e, "up")
		got := watch(t, e, `file: {path: /up}`, []report.Probe{{Name: "file", Error: "file /up: is not there"}}, func() {
			time.Sleep(5500 * time.Millisecond) // bad before and bad now: no news
			f.up()
			time.Sleep(2 * time.Second)
		})
		if got != "6s file:ok" {
			t.Errorf("told %s", got)
		}
	})
}

func TestAFailingProbeTellsItsNewReason(t *testing.T) {
	e := env(t)
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(e.Host.Root(), "f")
		var reasons []string
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() {
			probe.Watch(ctx, e, must(t, `file: {path: /f, contains: good}`), nil, func(p []report.Probe) { reasons = append(reasons, p[0].Error) })
		})
		time.Sleep(4500 * time.Millisecond)
		if err := os.WriteFile(path, []byte("bad"), 0o600); err != nil {
			t.Fatal(err)
		}
		time.Sleep(4 * time.Second)
		cancel()
		wg.Wait()
		if got := strings.Join(reasons, "; "); got != `file /f: is not there; file /f: does not contain "good"` {
			t.Errorf("told %s", got)
		}
	})
}

func TestAWatchEndsWithItsContextEvenWhenAProbeHangs(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0") // accepts in the backlog and never answers
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	probes := must(t, fmt.Sprintf(`http: {url: "http://%s/", every: 10ms}`, l.Addr()))
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	start := time.Now()
	probe.Watch(ctx, probe.Env{}, probes, nil, func(p []report.Probe) { t.Errorf("told %s", line(p)) })
	if took := time.Since(start); took > time.Second {
		t.Errorf("ended after %v", took)
	}
}
