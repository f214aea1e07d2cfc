package identify

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/aws/smithy-go"

	"github.com/amiagent/amiagent/internal/facts"
	"github.com/amiagent/amiagent/internal/imds"
)

// young is the age below which an instance without tags in the EC2 API may
// still get them: the API is eventually consistent.
const young = 2 * time.Minute

// tags reads the instance's tags from metadata, or from the EC2 API where they
// are not enabled in metadata.
func (s *survey) tags(doc imds.Document, o Options) error {
	const folder = "meta-data/tags/instance"
	keys, err := s.list(folder)
	if err != nil {
		return err
	}
	for _, key := range keys {
		s.value(facts.TagPrefix+key, folder+"/"+url.PathEscape(key))
	}
	if len(keys) > 0 {
		s.explain(facts.Tags{State: facts.TagsPresent, Source: source})
		return nil
	}
	// Without any tag, and with tags disabled, the answer is 404 or empty
	// (both have been seen). The list of categories tells these apart.
	categories, err := s.list("meta-data/")
	if err != nil {
		return err
	}
	if slices.Contains(categories, "tags/") {
		s.explain(facts.Tags{State: facts.TagsEmpty, Source: source})
		return nil
	}
	enable := imds.Remedy(doc.InstanceID, doc.Region, "--instance-metadata-tags enabled")
	if o.DescribeTags == nil {
		s.explain(facts.Tags{State: facts.TagsDisabled, Source: source, Hint: "enable tags in instance metadata: " + enable})
		return nil
	}
	tags, why := describe(s.ctx, doc, o, enable)
	if err := s.ctx.Err(); err != nil {
		return context.Cause(s.ctx)
	}
	s.mu.Lock()
	for key, value := range tags {
		s.facts.Set(facts.TagPrefix+key, value, facts.Launch, why.Source)
	}
	s.mu.Unlock()
	s.explain(why)
	return nil
}

func (s *survey) explain(t facts.Tags) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.facts.Tags = t
}

// describe asks the EC2 API. Every failure is a state with its remedy, since
// a manifest may do without tags.
func describe(ctx context.Context, doc imds.Document, o Options, enable string) (map[string]string, facts.Tags) {
	t := facts.Tags{Source: "ec2:DescribeTags"}
	tags, err := firstTags(ctx, doc, o)
	var api smithy.APIError
	code := ""
	if errors.As(err, &api) {
		code = api.ErrorCode()
	}
	switch {
	case err == nil && len(tags) > 0:
		t.State = facts.TagsPresent
		t.Hint = "each launch costs a call of the EC2 API, which a fleet shares; enable tags in instance metadata: " + enable
	case err == nil && isYoung(doc):
		t.State = facts.TagsNotYet
		t.Hint = fmt.Sprintf("the EC2 API knows no tag of %s after %s; tags in instance metadata are there from the start: %s", doc.InstanceID, o.TagWait, enable)
	case err == nil:
		t.State = facts.TagsEmpty
	case code == "UnauthorizedOperation" || strings.HasPrefix(code, "AccessDenied"):
		t.State = facts.TagsDenied
		t.Hint = `allow the action ec2:DescribeTags on resource "*" in the instance's role, or enable tags in instance metadata: ` + enable
	case code == "RequestLimitExceeded" || strings.HasPrefix(code, "Throttl") || code == "TooManyRequestsException":
		t.State = facts.TagsThrottled
		t.Hint = "the EC2 API limits DescribeTags for the whole account; enable tags in instance metadata: " + enable
	default:
		t.State, t.Source = facts.TagsDisabled, source
		t.Hint = fmt.Sprintf("enable tags in instance metadata: %s (the EC2 API was of no help: %v)", enable, err)
	}
	return tags, t
}

// firstTags asks once, and on a young instance again until there is a tag or
// TagWait is over.
func firstTags(ctx context.Context, doc imds.Document, o Options) (map[string]string, error) {
	deadline := time.Now().Add(o.TagWait)
	for wait := 200 * time.Millisecond; ; wait *= 2 {
		tags, err := o.DescribeTags(ctx, doc.InstanceID, doc.Region)
		if err != nil || len(tags) > 0 || !isYoung(doc) || time.Now().Add(wait).After(deadline) {
			return tags, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(wait):
		}
	}
}

func isYoung(doc imds.Document) bool {
	t, err := time.Parse(time.RFC3339, doc.Pending)
	return err == nil && time.Since(t).Abs() < young
}
