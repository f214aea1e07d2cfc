package awsconf

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"

	sdkimds "github.com/aws/aws-sdk-go-v2/feature/ec2/imds"

	"github.com/amiagent/amiagent/internal/diag"
	"github.com/amiagent/amiagent/internal/imds"
)

// role reads role credentials for the SDK through the agent's metadata client.
type role struct{ imds *imds.Client }

// GetMetadata takes a path below /latest/meta-data. Absent credentials are
// waited for: they appear some seconds after boot.
func (r role) GetMetadata(ctx context.Context, in *sdkimds.GetMetadataInput, _ ...func(*sdkimds.Options)) (*sdkimds.GetMetadataOutput, error) {
	const remedy = "attach an instance profile to the instance, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
	if r.imds == nil {
		return nil, diag.WithHint(errors.New("instance metadata is not in use here"), remedy)
	}
	b, err := r.imds.Await(ctx, "meta-data/"+strings.TrimPrefix(in.Path, "/"))
	switch {
	case errors.Is(err, imds.ErrAbsent), errors.Is(err, imds.ErrOff), err != nil && diag.Hint(err) == "":
		return nil, diag.WithHint(err, remedy)
	case err != nil:
		return nil, err
	}
	return &sdkimds.GetMetadataOutput{Content: io.NopCloser(bytes.NewReader(b))}, nil
}
