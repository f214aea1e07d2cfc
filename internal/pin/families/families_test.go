package families

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/amiagent/amiagent/internal/diag"
	"github.com/amiagent/amiagent/internal/fetch/web"
	"github.com/amiagent/amiagent/internal/host"
	"github.com/amiagent/amiagent/internal/pin"
	"github.com/amiagent/amiagent/internal/pin/pintest"
)

func TestEveryMachineHasItsFamily(t *testing.T) {
	h, err := host.New(t.TempDir(), host.Options{Programs: host.Outside})
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range []struct{ id, version, packages, by, want string }{
		{"amzn", "2018.03", "yum", "", "*al1.Family Amazon Linux AMI"},
		{"amzn", "2", "yum", "", "*al2.Family Amazon Linux 2"},
		{"amzn", "2", "yum", "versionlock", "*al2.Family Amazon Linux 2"},
		{"amzn", "2023", "dnf", "", "*al2023.Family Amazon Linux 2023"},
		{"amzn", "2027", "dnf5", "", "*al2023.Family Amazon Linux 2027"},
		{"rhel", "9.4", "dnf", "", "*rhui.Family rhel 9"},
		{"rocky", "8.10", "dnf", "", "*rhui.Family rocky 8"},
		{"ubuntu", "24.04", "apt", "", "*apt.Family ubuntu 24.04"},
		{"debian", "12", "apt", "url", "*apt.Family debian 12"},
		{"amzn", "2023", "dnf", "url", "cannot pin by \"url\" on amzn 2023 | leave it out there: the usual way of the OS is taken"},
		{"fedora", "41", "dnf", "", "refused: the package repositories of \"fedora 41\" cannot be pinned | known are Amazon Linux 1, 2, 2023 and 2027, Debian, Ubuntu, and RHEL with what is like it"},
		{"", "", "", "", "refused: the package repositories of \"\" cannot be pinned | known are Amazon Linux 1, 2, 2023 and 2027, Debian, Ubuntu, and RHEL with what is like it"},
	} {
		p, err := Open(h, pintest.Facts(x.id, x.version, x.packages), Settings{By: x.by})
		got := pintest.Told(err, diag.Hint(err))
		if err == nil {
			got = fmt.Sprintf("%T %s", p.Family, p.Name())
		}
		if got != x.want {
			t.Errorf("%s %s: %s, want %s", x.id, x.version, got, x.want)
		}
		if strings.HasPrefix(x.want, "refused") && !errors.Is(err, pin.ErrRefused) {
			t.Errorf("%s is not ErrRefused", x.id)
		}
	}
}

// What the package manager reaches by a proxy is validated by the same one.
func TestTheProxyIsThePackageManagers(t *testing.T) {
	m, err := host.New(t.TempDir(), host.Options{Env: []string{"https_proxy=http://env:1", "NO_PROXY=x"}})
	if err != nil {
		t.Fatal(err)
	}
	if got := network(web.Options{}, m, "dnf").Proxy; got.HTTPSProxy != "http://env:1" || got.NoProxy != "x" {
		t.Errorf("%+v", got)
	}
	if err := m.MkdirAll("/etc/dnf"); err != nil {
		t.Fatal(err)
	}
	if err := m.Replace("/etc/dnf/dnf.conf", []byte("[main]\nproxy=http://dnf:2\n"), 0o644, host.Keep); err != nil {
		t.Fatal(err)
	}
	if got := network(web.Options{}, m, "dnf").Proxy; got.HTTPSProxy != "http://dnf:2" || got.HTTPProxy != "http://dnf:2" {
		t.Errorf("%+v", got)
	}
}
