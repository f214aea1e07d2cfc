package command

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/amiagent/amiagent/internal/pin"
	"github.com/amiagent/amiagent/internal/pin/families"
	"github.com/amiagent/amiagent/internal/pkgmgr"
	"github.com/amiagent/amiagent/internal/repodata"
)

// pinning is what the subcommands of pin share.
type pinning struct {
	*app
	machine   machine
	by        string
	downgrade bool
	dryRun    bool
}

func (a *app) pinCommand() *cobra.Command {
	p := &pinning{app: a}
	root := &cobra.Command{
		Use:   "pin",
		Short: "Hold the machine's package repositories at a release, and move them",
		Long: "Hold the distribution's package repositories at a release, see what another would change, move there, and back.\n" +
			"A RELEASE is the vendor's (2023.9.20251117, 2018.03, 9.4), a moment of a snapshot server (20260401T000000Z),\n" +
			"or image (what this image was built from), latest (nothing is held) or now (what there is at this moment).",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	root.PersistentFlags().StringArrayVar(&p.machine.facts, "fact", nil, "a fact as `name=value`, as region; may be given several times")
	root.PersistentFlags().StringVar(&p.by, "by", "", "another `way` than the usual: url (Debian, Ubuntu), versionlock (Amazon Linux 2)")
	add(root, p.status(), p.set(), p.unlock(), p.diff(), p.advance(), p.rollback())
	return root
}

// open gives the machine's pin.
func (p *pinning) open(ctx context.Context) (*pin.Pin, error) {
	if _, known := families.Ways()[p.by]; p.by != "" && !known {
		return nil, usage{fmt.Errorf("unknown way %q, known are url and versionlock", p.by)}
	}
	ag, err := p.agent("pin", &p.machine, nil, nil)
	if err != nil {
		return nil, err
	}
	defer ag.Close()
	f, err := ag.Facts(ctx)
	if err != nil && f == nil {
		return nil, err
	}
	return families.Open(ag.Host(), f, families.Settings{By: p.by})
}

// do opens the pin, and has an interrupt end what it does.
func (p *pinning) do(c *cobra.Command, work func(context.Context, *pin.Pin) error) error {
	ctx, stop := signal.NotifyContext(c.Context(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	mine, err := p.open(ctx)
	if err != nil {
		return err
	}
	return work(ctx, mine)
}

func (p *pinning) status() *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Print which release is in force and how, what is newer, and what floats",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return p.do(c, func(ctx context.Context, mine *pin.Pin) error {
				s, err := mine.Status(ctx)
				if err != nil {
					return err
				}
				if p.json() {
					return printJSON(p.stdout, s)
				}
				return pinStatusText(p.stdout, s)
			})
		},
	}
}

func pinStatusText(w io.Writer, s pin.Status) error {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	line := func(name, format string, args ...any) { fmt.Fprintf(t, "%s\t%s\n", name, fmt.Sprintf(format, args...)) }
	line("system", "%s", s.Family)
	line("release", "%s (%s)", cmp.Or(s.Release, "unknown"), s.How)
	if s.Installed != "" && s.Installed != s.Release {
		line("installed", "packages of %s", s.Installed)
	}
	if s.Latest != "" {
		line("latest", "%s: %s", s.Latest, cmp.Or(s.BehindText(), "cannot tell how far behind"))
		if s.Notes != "" && s.Behind != nil && *s.Behind > 0 {
			line("", "%s", s.Notes)
		}
	}
	if len(s.Advisories) > 0 {
		line("security", "%s", advisoriesText(s.Advisories))
	}
	for i, r := range s.Floating {
		line(once(i, "floating"), "%s: %s", r.ID, r.Floating)
	}
	for i, o := range s.Odd {
		line(once(i, "odd"), "%s", o)
	}
	for i, u := range s.Unknown {
		line(once(i, "unknown"), "%s", u)
	}
	return t.Flush()
}

func once(i int, name string) string {
	if i == 0 {
		return name
	}
	return ""
}

// advisoriesText counts notices by severity and names the gravest.
func advisoriesText(all []repodata.Advisory) string {
	var words []string
	count := map[string]int{}
	for _, a := range all {
		severity := cmp.Or(strings.ToLower(a.Severity), "unrated")
		if count[severity]++; !slices.Contains(words, severity) {
			words = append(words, severity)
		}
	}
	for i, w := range words {
		words[i] = fmt.Sprintf("%d %s", count[w], w)
	}
	return fmt.Sprintf("%d pending: %s (%s first)", len(all), strings.Join(words, ", "), all[0].ID)
}

// held is what set and unlock print as JSON.
type held struct {
	Format  int    `json:"format"`
	Release string `json:"release"`
}

func (p *pinning) put(c *cobra.Command, word, text string) error {
	return p.do(c, func(ctx context.Context, mine *pin.Pin) error {
		release, err := mine.Set(ctx, word, nil)
		if err != nil {
			return err
		}
		if p.json() {
			return printJSON(p.stdout, held{1, release})
		}
		_, err = fmt.Fprintf(p.stdout, text+"\n", release)
		return err
	})
}

func (p *pinning) set() *cobra.Command {
	return &cobra.Command{
		Use:   "set RELEASE",
		Short: "Hold a release that exists; exit code 6 when it does not. Packages stay as they are",
		Args:  cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return p.put(c, args[0], "held at %s; installed packages stay as they are")
		},
	}
}

func (p *pinning) unlock() *cobra.Command {
	return &cobra.Command{
		Use:   "unlock",
		Short: "Hold nothing: packages come from whatever is newest",
		Args:  cobra.NoArgs,
		RunE:  func(c *cobra.Command, _ []string) error { return p.put(c, pin.Latest, "unlocked: %s") },
	}
}

// difference is what diff prints as JSON.
type difference struct {
	Format  int          `json:"format"`
	Release string       `json:"release"`
	Changes []pin.Change `json:"changes"`
}

func (p *pinning) diff() *cobra.Command {
	return &cobra.Command{
		Use:   "diff RELEASE",
		Short: "Print what of the installed packages a release has in another version",
		Args:  cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return p.do(c, func(ctx context.Context, mine *pin.Pin) error {
				release, err := mine.Meant(ctx, args[0])
				if err != nil {
					return err
				}
				changes, err := mine.Differences(ctx, release)
				if err != nil {
					return err
				}
				if p.json() {
					return printJSON(p.stdout, difference{1, release, slices.Concat([]pin.Change{}, changes)})
				}
				return changesText(p.stdout, changes)
			})
		},
	}
}

func changesText(w io.Writer, changes []pin.Change) error {
	if len(changes) == 0 {
		_, err := fmt.Fprintln(w, "no installed package would change")
		return err
	}
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	for _, c := range changes {
		arrow := "→"
		if c.Down {
			arrow = "↓"
		}
		var notices []string
		for _, a := range c.Advisories {
			notices = append(notices, strings.TrimSpace(a.ID+" "+strings.ToLower(a.Severity)))
		}
		fmt.Fprintf(t, "%s\t%s\t%s %s\t%s\n", c.Name, c.From, arrow, c.To, strings.Join(notices, ", "))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	text := fmt.Sprintf("%d %s would change", len(changes), plural(len(changes), "package", "packages"))
	if all := pin.Security(changes); len(all) > 0 {
		text += "; security advisories: " + advisoriesText(all)
	}
	_, err := fmt.Fprintln(w, text)
	return err
}

func (p *pinning) advance() *cobra.Command {
	var to string
	c := &cobra.Command{
		Use:   "advance",
		Short: "Move the installed packages to a release: validate, change, verify, remember",
		Long: "Move the installed packages to a release, the newest unless --to names one, and hold it. What was before is\n" +
			"remembered for `amiagent pin rollback`. Packages become older only with --downgrade.",
		Args: cobra.NoArgs,
	}
	c.Flags().StringVar(&to, "to", "", "the `release` to move to")
	p.moveFlags(c)
	c.Flags().BoolVar(&p.downgrade, "downgrade", false, "let packages become older")
	c.RunE = func(c *cobra.Command, _ []string) error {
		return p.move(c, func(ctx context.Context, mine *pin.Pin, o pin.MoveOptions) (pin.Moved, error) {
			return mine.Advance(ctx, to, o)
		})
	}
	return c
}

func (p *pinning) rollback() *cobra.Command {
	c := &cobra.Command{
		Use:   "rollback",
		Short: "Undo the last advance, packages included",
		Args:  cobra.NoArgs,
	}
	p.moveFlags(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		return p.move(c, func(ctx context.Context, mine *pin.Pin, o pin.MoveOptions) (pin.Moved, error) {
			return mine.Rollback(ctx, o)
		})
	}
	return c
}

func (p *pinning) moveFlags(c *cobra.Command) {
	c.Flags().BoolVar(&p.dryRun, "dry-run", false, "only print what would change")
}

func (p *pinning) move(c *cobra.Command, work func(context.Context, *pin.Pin, pin.MoveOptions) (pin.Moved, error)) error {
	return p.do(c, func(ctx context.Context, mine *pin.Pin) error {
		say := func(line string) { fmt.Fprintln(p.stderr, line) }
		o := pin.MoveOptions{DryRun: p.dryRun, Downgrade: p.downgrade, Talk: pkgmgr.Talk{Status: say}}
		if p.verbose {
			o.Talk.Output = say
		}
		m, err := work(ctx, mine, o)
		if err != nil {
			return err
		}
		if p.json() {
			return printJSON(p.stdout, m)
		}
		if p.dryRun {
			fmt.Fprintf(p.stdout, "from %s to %s:\n", cmp.Or(m.From, "unknown"), m.To)
			return changesText(p.stdout, m.Changes)
		}
		_, err = fmt.Fprintf(p.stdout, "moved from %s to %s: %d %s changed\n", cmp.Or(m.From, "unknown"), m.To, len(m.Changes), plural(len(m.Changes), "package", "packages"))
		return err
	})
}

// pinRefused tells whether an error is of those that end with ExitRefused.
func pinRefused(err error) bool {
	return errors.Is(err, pin.ErrNoRelease) || errors.Is(err, pin.ErrRefused)
}
