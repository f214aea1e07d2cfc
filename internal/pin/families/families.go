// Package families lists the families of operating systems whose package
// repositories can be held at a release. A new one is a folder beside this one
// and a line here.
package families

import (
	"cmp"
	"fmt"
	"strings"

	"golang.org/x/net/http/httpproxy"

	"github.com/amiagent/amiagent/internal/diag"
	"github.com/amiagent/amiagent/internal/facts"
	"github.com/amiagent/amiagent/internal/fetch/web"
	"github.com/amiagent/amiagent/internal/host"
	"github.com/amiagent/amiagent/internal/pin"
	"github.com/amiagent/amiagent/internal/pin/al1"
	"github.com/amiagent/amiagent/internal/pin/al2"
	"github.com/amiagent/amiagent/internal/pin/al2023"
	"github.com/amiagent/amiagent/internal/pin/apt"
	"github.com/amiagent/amiagent/internal/pin/rhui"
	"github.com/amiagent/amiagent/internal/pin/yumrepo"
	"github.com/amiagent/amiagent/internal/pkgmgr"
	"github.com/amiagent/amiagent/internal/repodata"
)

// Settings are what the caller knows beside the machine.
type Settings struct {
	Web web.Options
	// By chooses among the ways of a family; Repositories are frozen by address. See pin.Options.
	By           string
	Repositories map[string]string
	// Manager is shared with others of the same run; nil: one of its own.
	Manager *pkgmgr.Manager
}

// Ways are the values that Settings.By may have, with what they are for.
func Ways() map[string]string {
	return map[string]string{
		"url":         "Debian and Ubuntu: rewrite the sources to the snapshot server's addresses",
		"versionlock": "Amazon Linux 2: lock the installed packages, leave the repositories open",
	}
}

// list is every family with the machines that it is for, the first that fits counts.
func list() []struct {
	fits func(id, version, packages string) bool
	new  func(pin.Options) pin.Family
	by   string // the way it has beside its usual one
} {
	rpm := func(packages string) bool { return packages == "dnf" || packages == "dnf5" || packages == "yum" }
	return []struct {
		fits func(id, version, packages string) bool
		new  func(pin.Options) pin.Family
		by   string
	}{
		{func(id, version, packages string) bool { return id == "amzn" && version == "2" && rpm(packages) },
			func(o pin.Options) pin.Family { return al2.New(o) }, "versionlock"},
		{func(id, version, packages string) bool {
			return id == "amzn" && len(version) == 4 && rpm(packages)
		}, func(o pin.Options) pin.Family { return al2023.New(o) }, ""},
		{func(id, version, packages string) bool {
			return id == "amzn" && strings.Contains(version, ".") && packages == "yum"
		}, func(o pin.Options) pin.Family { return al1.New(o) }, ""},
		{func(_, _, packages string) bool { return packages == "apt" },
			func(o pin.Options) pin.Family { return apt.New(o) }, "url"},
		{func(id, _, packages string) bool { return id != "fedora" && rpm(packages) },
			func(o pin.Options) pin.Family { return rhui.New(o) }, ""},
	}
}

// Open is the Pin of a machine.
func Open(h *host.Host, f *facts.Facts, s Settings) (*pin.Pin, error) {
	id, version, packages := f.Get(facts.OSID), f.Get(facts.OSVersion), f.Get(facts.PackageFamily)
	for _, one := range list() {
		if !one.fits(id, version, packages) {
			continue
		}
		if s.By != "" && s.By != one.by {
			return nil, diag.WithHint(fmt.Errorf("cannot pin by %q on %s %s", s.By, id, version), "leave it out there: the usual way of the OS is taken")
		}
		o := pin.Options{Host: h, Facts: f, By: s.By, Repositories: s.Repositories, Manager: s.Manager}
		if o.Manager == nil {
			m, err := pkgmgr.New(h, packages)
			if err != nil {
				return nil, err
			}
			o.Manager = m
		}
		client, err := repodata.New(network(s.Web, h, packages))
		if err != nil {
			return nil, err
		}
		o.Client = client
		return pin.New(h, f, one.new(o)), nil
	}
	return nil, diag.WithHint(fmt.Errorf("%w: the package repositories of %q cannot be pinned", pin.ErrRefused, strings.TrimSpace(id+" "+version)),
		"known are Amazon Linux 1, 2, 2023 and 2027, Debian, Ubuntu, and RHEL with what is like it")
}

// network fills in the proxy: the one that dnf or yum is told to use, else that
// of the agent's environment. What they reach is reached the same way.
func network(o web.Options, h *host.Host, packages string) web.Options {
	setting := func(name string) string { return cmp.Or(h.Setting(name), h.Setting(strings.ToLower(name))) }
	o.Proxy = httpproxy.Config{HTTPProxy: setting("HTTP_PROXY"), HTTPSProxy: setting("HTTPS_PROXY"), NoProxy: setting("NO_PROXY")}
	if packages == "apt" {
		return o
	}
	d := yumrepo.DialectOf(packages)
	text, err := h.ReadLimited(d.Conf, 1<<20)
	if err != nil {
		return o
	}
	for _, s := range yumrepo.ParseINI(d.Conf, string(text)) {
		if p := s.Values["proxy"]; s.ID == "main" && p != "" && p != "_none_" {
			o.Proxy = httpproxy.Config{HTTPProxy: p, HTTPSProxy: p}
		}
	}
	return o
}
