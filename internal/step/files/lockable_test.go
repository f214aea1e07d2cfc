package files

import (
	"strings"
	"testing"

	"github.com/amiagent/amiagent/internal/step"
)

func TestAFetchedFileIsLockedToItsBytes(t *testing.T) {
	commit := strings.Repeat("c", 40)
	f := &File{Source: "git::https://h/conf.git//app.conf?ref=main"}
	f.SetName("/etc/app.conf")
	in := f.Inputs()
	if len(in) != 1 || in[0].Kind != step.Bytes || in[0].Name != f.Source {
		t.Fatalf("inputs are %+v", in)
	}
	if err := f.Lock(in[0], step.Resolution{Digest: "git:" + commit}); err != nil {
		t.Fatal(err)
	}
	if req := f.Fetches()[0]; req.Digest != "git:"+commit || req.Source != f.Source {
		t.Errorf("what is fetched is %+v", req)
	}
	if err := f.Lock(in[0], step.Resolution{Digest: "git:" + strings.Repeat("d", 40)}); err == nil {
		t.Error("another commit than the manifest's is taken")
	}
	text := "x"
	if in := (&File{Content: &text}).Inputs(); in != nil {
		t.Errorf("a file of the manifest itself names %v", in)
	}
}
