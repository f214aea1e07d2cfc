package command

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/amiagent/amiagent/agent"
	"github.com/amiagent/amiagent/internal/diag"
	"github.com/amiagent/amiagent/internal/facts"
	"github.com/amiagent/amiagent/internal/host"
	"github.com/amiagent/amiagent/internal/layers"
	"github.com/amiagent/amiagent/internal/lock"
	"github.com/amiagent/amiagent/internal/sign"
)

// lockFormat is the format number of what lock prints as JSON.
const lockFormat = 1

// heldBy reads the lock named on the command line; nil when none is.
func heldBy(name string) (*layers.Document, error) {
	if name == "" {
		return nil, nil
	}
	b, err := readLimited(name, lock.MaxBytes)
	if err != nil {
		return nil, usage{fmt.Errorf("cannot read the lock %s: %w", name, host.Cause(err))}
	}
	return &layers.Document{Source: name, File: name, Data: b, Origin: name}, nil
}

func readLock(name string) (*lock.Lock, error) {
	doc, err := heldBy(name)
	if err != nil {
		return nil, err
	}
	var list diag.List
	l := lock.Parse(name, doc.Data, &list)
	return l, list.Err()
}

// locking are the flags of `amiagent lock`.
type locking struct {
	machine
	file    string
	roles   []string
	targets []string
	check   bool
	update  []string
	whole   bool
}

func (a *app) lockCommand() *cobra.Command {
	var k locking
	c := &cobra.Command{
		Use:   "lock [MANIFEST...]",
		Short: "Write down what everything that moves is now, for launches to hold to",
		Long: "Resolve everything that moves: layers, package versions, artifacts, git refs. Write it to " + lock.File + ".\n" +
			"MANIFEST is a file, a folder, or an address with templates over facts; without any, the layers of agent.yaml are used.\n" +
			"A machine with a lock refuses what is not in it.\n\n" +
			"With --check nothing is written: exit code 3 says that something has moved, each in one line. With --update only what\n" +
			"is named moves: a step (packages.nginx, or nginx), a kind (packages), a layer's source, manifest or pin.\n" +
			"Both repeat what the lock was made from when nothing else is said.",
		Example: "  amiagent lock web.yaml\n" +
			"  amiagent lock base.yaml 's3://acme/{{ tag \"Role\" }}.yaml' --facts roles/web.yaml --facts roles/db.yaml\n" +
			"  amiagent lock --check\n" +
			"  amiagent lock --update nginx --update artifacts.app\n" +
			"  amiagent lock diff old.lock new.lock",
		Args: cobra.ArbitraryArgs,
	}
	c.Flags().StringArrayVar(&k.facts, "fact", nil, "a fact as `name=value`, for all roles; may be given several times")
	c.Flags().StringArrayVar(&k.roles, "facts", nil, "a `file` of facts, captured or by hand, for one role; may be given several times")
	c.Flags().StringArrayVar(&k.targets, "target", nil, "an `OS-VERSION/ARCH` to lock for, as amzn-2023/arm64, of which nothing else is known; may be given several times")
	c.Flags().StringVarP(&k.file, "file", "f", lock.File, "the lock's `file`")
	c.Flags().BoolVar(&k.check, "check", false, "say what has moved since, and write nothing")
	c.Flags().BoolVar(&k.whole, "transaction", false, "lock all that comes along with the packages too; on a machine as they will be, fresh from its image")
	c.Flags().StringSliceVar(&k.update, "update", nil, "move only this `name`; may be given several times")
	c.RunE = func(c *cobra.Command, names []string) error {
		if k.check && len(k.update) > 0 {
			return usage{errors.New("--check and --update cannot be combined")}
		}
		return a.lock(c.Context(), &k, names)
	}
	add(c, a.lockDiffCommand())
	return c
}

func (a *app) lockDiffCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "diff OLD NEW",
		Short: "Say in words what differs between two locks",
		Args:  cobra.ExactArgs(2),
	}
	c.RunE = func(_ *cobra.Command, names []string) error {
		old, err := readLock(names[0])
		if err != nil {
			return err
		}
		fresh, err := readLock(names[1])
		if err != nil {
			return err
		}
		return a.printChanges(lock.Diff(old, fresh), nil, "no difference")
	}
	return c
}

// lockReport is what lock prints as JSON. Fields are added, never renamed.
type lockReport struct {
	Format  int           `json:"format"`
	Moved   bool          `json:"moved"`
	Changes []lock.Change `json:"changes"`
	Notes   []string      `json:"notes,omitempty"`
}

func (a *app) printChanges(changes []lock.Change, notes []string, none string) error {
	if a.json() {
		if changes == nil {
			changes = []lock.Change{}
		}
		return printJSON(a.stdout, lockReport{Format: lockFormat, Moved: len(changes) > 0, Changes: changes, Notes: notes})
	}
	for _, c := range changes {
		fmt.Fprintln(a.stdout, c.Text)
	}
	for _, n := range notes {
		fmt.Fprintln(a.stdout, "note: "+n)
	}
	if len(changes) == 0 && none != "" {
		fmt.Fprintln(a.stdout, none)
	}
	return nil
}

func (a *app) lock(ctx context.Context, k *locking, names []string) error {
	old, err := readLock(k.file)
	if errors.Is(err, fs.ErrNotExist) && !k.check && k.update == nil {
		old, err = nil, nil
	}
	if err != nil {
		return diag.WithHint(err, "`amiagent lock MANIFEST...` writes a lock; -f names another file")
	}
	from, given, err := k.from(old, names)
	if err != nil {
		return err
	}
	m := machine{facts: given}
	ag, err := a.agent("lock", &m, nil, nil)
	if err != nil {
		return err
	}
	defer ag.Close()
	opt := agent.LockOptions{From: from, Old: old}
	if k.update != nil {
		opt.Only = k.update
	}
	dir := filepath.Dir(k.file)
	if opt.Manifest, err = lockLayers(dir, from.Manifest); err != nil {
		return err
	}
	if opt.Roles, err = lockRoles(ctx, ag, dir, from); err != nil {
		return err
	}
	if opt.Dir, err = os.MkdirTemp("", "amiagent-lock-"); err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(opt.Dir) }()
	fresh, notes, err := ag.Lock(ctx, opt)
	if err != nil {
		return err
	}
	if k.update != nil {
		if fresh, err = old.Update(fresh, k.update); err != nil {
			return usage{err}
		}
	}
	return a.finish(k, old, fresh, notes)
}

// finish writes the lock, or says what it would be.
func (a *app) finish(k *locking, old, fresh *lock.Lock, notes []string) error {
	var changes []lock.Change
	if old != nil {
		changes = lock.Diff(old, fresh)
	}
	if k.check {
		if err := a.printChanges(changes, nil, "nothing has moved"); err != nil || len(changes) == 0 {
			return err
		}
		return exit{ExitDrift}
	}
	text, err := fresh.Bytes()
	if err != nil {
		return err
	}
	if have, err := os.ReadFile(k.file); err != nil || !bytes.Equal(have, text) {
		if err := replace(k.file, text); err != nil {
			return fmt.Errorf("cannot write %s: %w", k.file, host.Cause(err))
		}
		if _, err := os.Stat(k.file + sign.Suffix); err == nil {
			fmt.Fprintf(a.stderr, "amiagent: %s is of the file before this change: sign it again\n", k.file+sign.Suffix)
		}
	}
	if old == nil {
		if a.json() {
			return a.printChanges(nil, notes, "")
		}
		inputs := 0
		for _, t := range fresh.Targets {
			inputs += len(t.Packages) + len(t.Artifacts)
		}
		fmt.Fprintf(a.stdout, "%s holds %d %s for %s\n", k.file, inputs, plural(inputs, "input", "inputs"), strings.Join(sortedKeys(fresh.Targets), ", "))
		return a.printChanges(nil, notes, "")
	}
	return a.printChanges(changes, notes, "nothing has moved")
}

func sortedKeys[V any](m map[string]V) []string {
	var all []string
	for k := range m {
		all = append(all, k)
	}
	slices.Sort(all)
	return all
}

// from is what the lock is made from: what the command line says, else what
// the lock that is there was made from. Paths become relative to the lock.
func (k *locking) from(old *lock.Lock, names []string) (lock.From, []string, error) {
	var from lock.From
	if old != nil && len(names) == 0 {
		from = old.From
	}
	for _, name := range names {
		if !isAddress(name) {
			name = relative(k.file, name)
		}
		from.Manifest = append(from.Manifest, name)
	}
	if len(k.roles)+len(k.targets) > 0 {
		from.Facts, from.Targets = nil, k.targets
		for _, name := range k.roles {
			from.Facts = append(from.Facts, relative(k.file, name))
		}
	}
	for _, t := range from.Targets {
		if _, _, _, err := lock.SplitTarget(t); err != nil {
			return from, nil, usage{err}
		}
	}
	from.Transaction = from.Transaction || k.whole
	given, err := k.parse()
	if err != nil {
		return from, nil, err
	}
	if len(given) > 0 {
		from.Given = given
	}
	var all []string
	for _, name := range sortedKeys(from.Given) {
		all = append(all, name+"="+from.Given[name])
	}
	return from, all, nil
}

// isAddress tells addresses of layers from paths.
func isAddress(name string) bool {
	return strings.Contains(name, "://") || strings.Contains(name, "::") || strings.HasPrefix(name, "ssm:")
}

// relative is a path as seen from the folder of the lock.
func relative(lockFile, name string) string {
	if filepath.IsAbs(name) {
		return name
	}
	dir, err := filepath.Abs(filepath.Dir(lockFile))
	if err != nil {
		return name
	}
	abs, err := filepath.Abs(name)
	if err != nil {
		return name
	}
	if rel, err := filepath.Rel(dir, abs); err == nil {
		return rel
	}
	return name
}

func from(dir, name string) string {
	if filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(dir, name)
}

// lockLayers reads the manifests that are files, and leaves addresses for later.
func lockLayers(dir string, names []string) ([]agent.LockLayer, error) {
	var all []agent.LockLayer
	for _, name := range names {
		if isAddress(name) {
			all = append(all, agent.LockLayer{Address: name})
			continue
		}
		docs, err := documents([]string{from(dir, name)})
		if err != nil {
			return nil, err
		}
		for _, d := range docs {
			if rel, err := filepath.Rel(dir, d.Source); err == nil && !filepath.IsAbs(name) {
				d.Source, d.Origin = rel, rel
			}
			all = append(all, agent.LockLayer{Document: &d})
		}
	}
	return all, nil
}

// lockRoles are the sorts of machine to lock for: one for each file of facts
// and each target, else this machine.
func lockRoles(ctx context.Context, ag *agent.Agent, dir string, made lock.From) ([]agent.LockRole, error) {
	var roles []agent.LockRole
	add := func(name string, f *facts.Facts) {
		for n, v := range made.Given {
			f.Set(n, v, facts.StageOf(n), "flag")
		}
		f.Complete()
		roles = append(roles, agent.LockRole{Name: name, Facts: f})
	}
	for _, file := range made.Facts {
		f, err := facts.Load(from(dir, file))
		if err != nil {
			return nil, diag.WithHint(err, "`amiagent facts --capture FILE` writes such a file on the machine that is meant")
		}
		name := strings.TrimSuffix(filepath.Base(file), filepath.Ext(file))
		if slices.ContainsFunc(roles, func(r agent.LockRole) bool { return r.Name == name }) {
			name = file
		}
		add(name, f)
	}
	for _, target := range made.Targets {
		os, version, arch, err := lock.SplitTarget(target)
		if err != nil {
			return nil, usage{err}
		}
		f := facts.New()
		for name, value := range map[string]string{facts.OSID: os, facts.OSVersion: version, facts.Arch: arch} {
			f.Set(name, value, facts.Bake, "target")
		}
		add(target, f)
	}
	if len(roles) == 0 {
		f, err := ag.Facts(ctx)
		if err != nil {
			return nil, err
		}
		f.Complete()
		roles = append(roles, agent.LockRole{Name: lock.TargetOf(f), Facts: f})
	}
	return roles, nil
}
