package imds

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/amiagent/amiagent/internal/diag"
)

// Errors that callers tell apart.
var (
	ErrAbsent      = errors.New("not there")                   // 404: the service works and has no such value
	ErrOff         = errors.New("switched off")                // by setting; nothing was asked
	ErrUnreachable = errors.New("nothing listens")             // no connection: not EC2, or no network yet
	ErrNoAnswer    = errors.New("connected, but no answer")    // the answer is lost on its way, or the service hangs
	ErrForbidden   = errors.New("refused")                     // 403: the service is disabled for this instance
	ErrNoV2        = errors.New("no token is to be had there") // not the metadata service of EC2, or version 1 only

	errStale    = errors.New("token not accepted")
	errBroken   = errors.New("connection broke")
	errTooLarge = errors.New("answer is too large")
)

// StatusError is an answer that is neither a value nor one of the errors above.
type StatusError struct {
	Code       int
	RetryAfter time.Duration // as the service asked, at most 30 s
}

func (e *StatusError) Error() string {
	return strings.TrimSpace(fmt.Sprintf("answered %d %s", e.Code, http.StatusText(e.Code)))
}

func transient(err error) bool {
	var se *StatusError
	switch {
	case errors.Is(err, ErrForbidden), errors.Is(err, ErrNoV2), errors.Is(err, ErrAbsent), errors.Is(err, errTooLarge):
		return false
	case errors.Is(err, errStale), errors.Is(err, ErrUnreachable), errors.Is(err, ErrNoAnswer), errors.Is(err, errBroken):
		return true
	case errors.As(err, &se):
		return se.Code >= 500 || se.Code == http.StatusTooManyRequests || se.Code == http.StatusRequestTimeout
	}
	return false
}

// explain names the value that could not be read, and what to try.
func (c *Client) explain(path string, err error) error {
	err = fmt.Errorf("cannot read instance metadata %s: %w", path, err)
	instance, region := c.opt.Instance, c.opt.Region
	switch {
	case errors.Is(err, ErrForbidden):
		return diag.WithHint(err, "the metadata service is disabled for this instance; enable it with: %s",
			Remedy(instance, region, "--http-endpoint enabled --http-tokens required"))
	case errors.Is(err, ErrNoAnswer):
		return diag.WithHint(err, "in a container or behind a bridge, the answer needs a second hop; allow it with: %s",
			Remedy(instance, region, "--http-put-response-hop-limit 2"))
	case errors.Is(err, ErrNoV2):
		return diag.WithHint(err, "IMDSv2 is required and version 1 is never used; outside EC2, set AWS_EC2_METADATA_DISABLED=true")
	case errors.Is(err, ErrUnreachable) && c.opt.Explicit:
		return diag.WithHint(err, "AWS_EC2_METADATA_SERVICE_ENDPOINT names %s; unset it outside EC2", c.opt.Endpoints[0])
	case errors.Is(err, ErrUnreachable) && c.opt.OnEC2:
		return diag.WithHint(err, "is the network up, and is there a route to %s?", c.opt.Endpoints[0])
	}
	return err
}

// Remedy is the call that changes an instance's metadata options; what is not
// known of the instance is left for the reader to fill in.
func Remedy(instance, region, flags string) string {
	if instance == "" {
		instance = "INSTANCE-ID"
	}
	s := "aws ec2 modify-instance-metadata-options --instance-id " + instance + " " + flags
	if region != "" {
		s += " --region " + region
	}
	return s
}
