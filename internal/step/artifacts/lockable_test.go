package artifacts

import (
	"strings"
	"testing"

	"github.com/amiagent/amiagent/internal/diag"
	"github.com/amiagent/amiagent/internal/step"
)

const locked = "sha256:7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed"

func TestAnArtifactIsLockedToItsBytes(t *testing.T) {
	a := &Artifact{Source: "s3://acme/app.tar.zst", Unpack: "/opt/app"}
	a.SetName("app")
	in := a.Inputs()
	if len(in) != 1 || in[0].Kind != step.Bytes || in[0].Name != "s3://acme/app.tar.zst" || in[0].Want != "" || !in[0].Request.Unpack {
		t.Fatalf("inputs are %+v", in)
	}
	if err := a.Lock(in[0], step.Resolution{Digest: locked, Size: 7, Version: "v1"}); err != nil {
		t.Fatal(err)
	}
	req := a.Fetches()[0]
	if req.Digest != locked || req.Size != 7 || req.Source != "s3://acme/app.tar.zst?versionId=v1" || strings.Join(req.Mirrors, " ") != "s3://acme/app.tar.zst" {
		t.Errorf("what is fetched is %+v", req)
	}
	var list diag.List
	if a.Validate(diag.NewAt(&list, nil, "")); list.Err() != nil {
		t.Error("a locked body is faulty:", list.Err())
	}

	own := &Artifact{Source: "https://a/app", Digest: "sha256:" + strings.Repeat("0", 64), File: "/app"}
	if in := own.Inputs(); in[0].Want != own.Digest {
		t.Errorf("what the manifest says is not told: %+v", in)
	}
	if err := own.Lock(own.Inputs()[0], step.Resolution{Digest: locked}); err == nil || own.Digest == locked {
		t.Error("the lock overrules the manifest")
	}
	if in := (&Artifact{}).Inputs(); in != nil {
		t.Errorf("a body without source names %v", in)
	}
}
