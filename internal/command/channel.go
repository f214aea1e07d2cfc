package command

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/amiagent/amiagent/agent"
	"github.com/amiagent/amiagent/internal/channel"
	"github.com/amiagent/amiagent/internal/config"
	"github.com/amiagent/amiagent/internal/diag"
	"github.com/amiagent/amiagent/internal/host"
	"github.com/amiagent/amiagent/internal/lock"
	"github.com/amiagent/amiagent/internal/report"
)

// channelFormat is the format number of what `channel` prints as JSON.
const channelFormat = 1

func (a *app) channelCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "channel",
		Short: "Advance a fleet from one lock to the next, a share at a time",
		Long: "A channel is a small file in S3 or behind HTTPS that names two locks by digest, stable and candidate, and the share of\n" +
			"launches that take the candidate. An instance's wave, from 1 to 100, is a hash of its id: it takes the candidate if its\n" +
			"wave is at most the share. promote and pause change a local copy of the file; sign it and upload it with your own tools.",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	add(c, a.channelShowCommand(), a.channelPromoteCommand(), a.channelPauseCommand(), a.channelAdvanceCommand())
	return c
}

func (a *app) channelShowCommand() *cobra.Command {
	var instances []string
	var at string
	c := &cobra.Command{
		Use:   "show [ADDRESS]",
		Short: "Print a channel, and which lock instances would get, and why",
		Long: "Print the channel in a file or at an address, and with --instance which lock each would get if it launched now.\n" +
			"Without ADDRESS, print the lock that this machine has from its channel.",
		Args: cobra.MaximumNArgs(1),
	}
	c.Flags().StringSliceVar(&instances, "instance", nil, "instance `ID`s, separated by commas; may be given several times")
	c.Flags().StringVar(&at, "at", "", "what they would get at another `time`, as 2026-11-23T09:00:00Z or +24h")
	c.RunE = func(c *cobra.Command, args []string) error {
		if len(args) == 0 {
			if len(instances) > 0 || at != "" {
				return usage{errors.New("--instance and --at need the ADDRESS of a channel")}
			}
			return a.showFollowed()
		}
		now := time.Now()
		if at != "" {
			t, err := moment(at, now)
			if err != nil {
				return err
			}
			now = t
		}
		ch, err := a.readChannel(c.Context(), args[0])
		if err != nil {
			return err
		}
		return a.showChannel(ch, instances, now)
	}
	return c
}

// readChannel reads a channel from the user's own files, or from where instances read it.
func (a *app) readChannel(ctx context.Context, address string) (*channel.Channel, error) {
	if !strings.Contains(address, "://") && !strings.Contains(address, "::") {
		return channelFile(address)
	}
	ag, err := a.agent("channel", &machine{}, nil, nil)
	if err != nil {
		return nil, err
	}
	defer ag.Close()
	return ag.ReadChannel(ctx, address)
}

func channelFile(name string) (*channel.Channel, error) {
	b, err := readLimited(name, channel.MaxBytes)
	if err != nil {
		return nil, usage{fmt.Errorf("cannot read the channel %s: %w", name, host.Cause(err))}
	}
	return channel.Parse(name, b)
}

// expected is what one instance would get.
type expected struct {
	Instance string `json:"instance"`
	channel.Choice
}

func (a *app) showChannel(ch *channel.Channel, instances []string, now time.Time) error {
	var all []expected
	for _, id := range instances {
		all = append(all, expected{id, ch.Choose(id, now)})
	}
	share := 0
	if ch.Candidate != nil {
		share = ch.Candidate.ShareAt(now)
	}
	if a.json() {
		return printJSON(a.stdout, struct {
			Format    int              `json:"format"`
			At        channel.Time     `json:"at"`
			Share     int              `json:"share"` // of the candidate at that time
			Channel   *channel.Channel `json:"channel"`
			Instances []expected       `json:"instances,omitempty"`
		}{channelFormat, channel.At(now), share, ch, all})
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "channel %s, revision %d\n", ch.Name, ch.Revision)
	fmt.Fprintf(&b, "  stable     %s\n", ch.Stable)
	if k := ch.Candidate; k != nil {
		fmt.Fprintf(&b, "  candidate  %s\n", k.Lock)
		fmt.Fprintf(&b, "  share      %d %% of the launches%s\n", share, paused(k))
		for _, s := range k.Schedule {
			fmt.Fprintf(&b, "             %3d %% from %s\n", s.Share, s.From)
		}
	}
	if ch.OnCandidateFailure != "" {
		fmt.Fprintf(&b, "  on-candidate-failure: %s\n", ch.OnCandidateFailure)
	}
	if len(ch.History) > 0 {
		h := ch.History[0]
		by := ""
		if h.By != "" {
			by = " by " + h.By
		}
		fmt.Fprintf(&b, "  last change %s%s: %s\n", h.At, by, h.What)
	}
	if len(all) > 0 {
		fmt.Fprintln(&b)
		w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
		for _, v := range all {
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", report.Printable(v.Instance), v.Role, v.Lock, v.Why)
		}
		_ = w.Flush() // into memory
	}
	_, err := b.WriteTo(a.stdout)
	return err
}

func paused(k *channel.Candidate) string {
	switch {
	case k.Paused && k.PausedAt.IsZero():
		return ", paused"
	case k.Paused:
		return ", paused since " + k.PausedAt.String()
	}
	return ""
}

func (a *app) showFollowed() error {
	h, err := a.host()
	if err != nil {
		return err
	}
	f, err := agent.Followed(h)
	if err != nil {
		return err
	}
	if a.json() {
		return printJSON(a.stdout, struct {
			Format   int             `json:"format"`
			Followed *report.Channel `json:"followed"` // null: the machine has not launched by a channel
		}{channelFormat, f})
	}
	if f == nil {
		_, err = fmt.Fprintln(a.stdout, "this machine has not launched by a channel")
		return err
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s of channel %s at revision %d\n", f.Role, f.Name, f.Revision)
	fmt.Fprintf(&b, "  lock    %s\n  source  %s\n  chosen  %s\n  why     %s\n", f.Lock, f.Source, f.Chosen.Format(time.RFC3339), f.Why)
	if t := f.Failed; t != nil {
		fmt.Fprintf(&b, "  failed  candidate %s: %s\n          see `amiagent analyze %s`\n", t.Lock, report.Printable(t.Error), t.Report)
	}
	_, err = b.WriteTo(a.stdout)
	return err
}

func (a *app) channelPromoteCommand() *cobra.Command {
	var lockFile, digest, seed, by string
	var schedule []string
	var share int
	var toStable bool
	c := &cobra.Command{
		Use:   "promote FILE",
		Short: "Give more launches the candidate, name a new one, or make it the stable lock",
		Long: "Change a channel's file. With --share or --schedule the candidate, a new one if --lock or --digest names it, goes to so\n" +
			"many percent of the launches. With --to-stable the candidate, or the lock that is named, goes to all, and no candidate is\n" +
			"left. A file that does not exist is created by --to-stable with --lock or --digest.",
		Example: "  amiagent channel promote web.yaml --lock amiagent.lock --share 5\n" +
			"  amiagent channel promote web.yaml --lock amiagent.lock --schedule 5@+0h,25@+24h,100@+72h\n" +
			"  amiagent channel promote web.yaml --to-stable",
		Args: cobra.ExactArgs(1),
	}
	f := c.Flags()
	f.StringVar(&lockFile, "lock", "", "the `file` of the lock")
	f.StringVar(&digest, "digest", "", "the `sha256:HEX` of the lock, instead of its file")
	f.IntVar(&share, "share", 0, "`percent` of the launches, 0 to 100")
	f.StringSliceVar(&schedule, "schedule", nil, "shares that hold from a time on, as `PERCENT@TIME`; a time is 2026-11-23T09:00:00Z, or +24h from now")
	f.BoolVar(&toStable, "to-stable", false, "make the lock the stable one")
	f.StringVar(&seed, "seed", "", "a `text` that keeps the instances of the share the same for another candidate with the same text")
	f.StringVar(&by, "by", "", "`who`, for the channel's history")
	save := a.saveFlags(c)
	c.RunE = func(c *cobra.Command, args []string) error {
		if err := errors.Join(onlyOne(c, "lock", "digest"), onlyOne(c, "share", "schedule", "to-stable")); err != nil {
			return err
		}
		p := channel.Promotion{Lock: digest, Share: -1, ToStable: toStable, Seed: seed, By: by, Now: time.Now()}
		if c.Flags().Changed("share") {
			p.Share = share
		}
		var err error
		if p.Schedule, err = parseSchedule(schedule, p.Now); err != nil {
			return err
		}
		if lockFile != "" {
			if p.Lock, err = lockDigest(lockFile); err != nil {
				return err
			}
		}
		ch, what, err := promote(args[0], p)
		if err != nil {
			return err
		}
		if err := save(args[0], ch, what); err != nil || a.json() {
			return err
		}
		if lockFile != "" {
			_, err = fmt.Fprintf(a.stdout, "before you upload it, upload %s as %s\n", lockFile, ch.LockAddress("", p.Lock))
		}
		return err
	}
	return c
}

// onlyOne holds that of some flags at most one is given.
func onlyOne(c *cobra.Command, names ...string) error {
	var given []string
	for _, n := range names {
		if c.Flags().Changed(n) {
			given = append(given, "--"+n)
		}
	}
	if len(given) > 1 {
		return misused(c, fmt.Errorf("%s contradict each other", strings.Join(given, " and ")))
	}
	return nil
}

// promote changes the channel in a file, or makes the first.
func promote(name string, p channel.Promotion) (ch *channel.Channel, what string, err error) {
	_, err = os.Stat(name)
	if errors.Is(err, fs.ErrNotExist) {
		if !p.ToStable || p.Lock == "" {
			return nil, "", usage{diag.WithHint(fmt.Errorf("cannot read the channel %s: %w", name, fs.ErrNotExist), "create it with --to-stable and --lock LOCKFILE")}
		}
		base := filepath.Base(name)
		if ch, err = channel.New(strings.TrimSuffix(base, filepath.Ext(base)), p.Lock, p.Now, p.By); err != nil {
			return nil, "", usage{err}
		}
		return ch, ch.History[0].What, nil
	}
	if ch, err = channelFile(name); err != nil {
		return nil, "", err
	}
	if what, err = ch.Promote(p); err != nil && !errors.Is(err, channel.ErrRefused) {
		err = usage{err}
	}
	return ch, what, err
}

func (a *app) channelPauseCommand() *cobra.Command {
	var resume bool
	var by string
	c := &cobra.Command{
		Use:   "pause FILE",
		Short: "Stop further launches from taking the candidate, or let them again",
		Long: "Change a channel's file so that no further launch takes the candidate; instances that have it keep it. With --resume\n" +
			"launches take it again, at the share at which it was paused; what is left of a schedule comes later by the pause.",
		Args: cobra.ExactArgs(1),
	}
	c.Flags().BoolVar(&resume, "resume", false, "end the pause")
	c.Flags().StringVar(&by, "by", "", "`who`, for the channel's history")
	save := a.saveFlags(c)
	c.RunE = func(c *cobra.Command, args []string) error {
		ch, err := channelFile(args[0])
		if err != nil {
			return err
		}
		change := ch.Pause
		if resume {
			change = ch.Resume
		}
		what, err := change(time.Now(), by)
		if err != nil {
			if !errors.Is(err, channel.ErrRefused) {
				err = usage{err}
			}
			return err
		}
		return save(args[0], ch, what)
	}
	return c
}

func (a *app) channelAdvanceCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "advance",
		Short: "Have this instance read its channel again, and converge on the lock that it gets now",
		Long: "An instance keeps the lock it launched with, across reboots and whatever becomes of its channel. This asks it to choose\n" +
			"again: the running agent at once, else the next launch.",
		RunE: func(c *cobra.Command, _ []string) error {
			h, err := a.host()
			if err != nil {
				return err
			}
			cfg, err := config.Read(h)
			if err != nil {
				return err
			}
			if cfg.Channel == "" {
				return diag.WithHint(fmt.Errorf("%w: this machine follows no channel", channel.ErrRefused), "name one under channel: in %s", config.Path)
			}
			if err := agent.Advance(c.Context(), h); err != nil {
				return err
			}
			pid, err := a.signalAgent(syscall.SIGHUP)
			switch {
			case err != nil && a.json():
				return printJSON(a.stdout, map[string]any{"format": channelFormat, "when": "next-launch"})
			case err != nil:
				_, err = fmt.Fprintln(a.stdout, "no agent is running; the next launch or `amiagent apply` reads the channel again")
				return err
			case a.json():
				return printJSON(a.stdout, map[string]any{"format": channelFormat, "when": "now", "pid": pid})
			}
			_, err = fmt.Fprintf(a.stdout, "pid %d reads the channel again and converges; see `amiagent status`\n", pid)
			return err
		},
	}
}

// lockDigest is the digest of a lock's file. A file that is no lock is a fault.
func lockDigest(name string) (string, error) {
	b, err := readLimited(name, lock.MaxBytes)
	if err != nil {
		return "", usage{fmt.Errorf("cannot read the lock %s: %w", name, host.Cause(err))}
	}
	var list diag.List
	lock.Parse(name, b, &list)
	return fmt.Sprintf("sha256:%x", sha256.Sum256(b)), list.Err()
}

func parseSchedule(entries []string, now time.Time) ([]channel.From, error) {
	var schedule []channel.From
	for _, e := range entries {
		percent, when, ok := strings.Cut(strings.TrimSpace(e), "@")
		share, err := strconv.Atoi(percent)
		if !ok || err != nil {
			return nil, usage{diag.WithHint(fmt.Errorf("--schedule %q is not PERCENT@TIME", e), "as in --schedule 5@+0h,25@+24h,100@2026-11-26T09:00:00Z")}
		}
		from, err := moment(when, now)
		if err != nil {
			return nil, err
		}
		schedule = append(schedule, channel.From{Share: share, From: channel.At(from)})
	}
	return schedule, nil
}

// moment reads a time, or how long from now.
func moment(s string, now time.Time) (time.Time, error) {
	if strings.HasPrefix(s, "+") {
		d, err := time.ParseDuration(s)
		if err != nil {
			return now, usage{fmt.Errorf("%q is not a duration such as +90m or +24h", s)}
		}
		return now.Add(d), nil
	}
	var t channel.Time
	if err := t.UnmarshalText([]byte(s)); err != nil {
		return now, usage{fmt.Errorf("a time %w, or +24h", err)}
	}
	return t.Time, nil
}
