package packages

import (
	"testing"

	"github.com/amiagent/amiagent/internal/step"
)

func TestAPackageIsLockedToAVersion(t *testing.T) {
	for _, c := range []struct{ want, locked, fault string }{
		{"", "1:1.28.0-1.amzn2023", ""},
		{"1.28.*", "1:1.28.0-1.amzn2023", ""},
		{"1:1.28.0-1.amzn2023", "1:1.28.0-1.amzn2023", ""},
		{"1.30.*", "1:1.28.0-1.amzn2023", "the manifest says version 1.30.*, the lock has 1:1.28.0-1.amzn2023"},
	} {
		p := &Package{Version: c.want, State: present}
		p.SetName("nginx")
		in := p.Inputs()
		if len(in) != 1 || in[0].Kind != step.Package || in[0].Name != "nginx" || in[0].Want != c.want {
			t.Errorf("inputs are %+v", in)
		}
		err := p.Lock(in[0], step.Resolution{Version: c.locked})
		switch {
		case c.fault == "" && (err != nil || p.want().Version != c.locked):
			t.Errorf("%q: wants %q, %v", c.want, p.want().Version, err)
		case c.fault != "" && (err == nil || err.Error() != c.fault || p.Version != c.want):
			t.Errorf("%q: %v, wants %q", c.want, err, p.Version)
		}
	}
	if in := (&Package{State: absent}).Inputs(); in != nil {
		t.Errorf("an absent package names %v", in)
	}
}

func TestWhatComesAlongIsNoMember(t *testing.T) {
	member := func(name string, with map[string]string) step.Member {
		return step.Member{ID: step.ID{Kind: "packages", Name: name}, Step: &Package{name: name, with: with}}
	}
	all := along([]step.Member{
		member("nginx", map[string]string{"libpcre": "10.42", "curl": "8", "openssl": "3"}),
		member("curl", map[string]string{"libpcre": "10.42"}),
	})
	got := ""
	for _, w := range all {
		got += w.Name + "=" + w.Version + " "
	}
	if got != "libpcre=10.42 openssl=3 " {
		t.Error(got)
	}
}
