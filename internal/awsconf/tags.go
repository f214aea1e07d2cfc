package awsconf

import (
	"context"
	"fmt"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
)

// tagAttempts is how often the tags are asked for in all, which takes 15 s at
// most: a launch may do without them, and waits for whatever comes next.
const tagAttempts = 5

// InstanceTags asks the EC2 API for the tags of one instance; it needs
// ec2:DescribeTags. One call, retried by the SDK with backoff while it is
// throttled. No tags is an empty map. Errors are the SDK's, with their codes.
func InstanceTags(ctx context.Context, cfg aws.Config, instance string) (map[string]string, error) {
	// A method value: boxed in an interface, the client would keep every EC2 call in the binary.
	describe := ec2.NewFromConfig(cfg, func(o *ec2.Options) {
		o.RetryMaxAttempts = min(o.RetryMaxAttempts, tagAttempts)
	}).DescribeTags
	out, err := describe(ctx, &ec2.DescribeTagsInput{
		// An instance has 50 tags at most, so that one page holds them all.
		Filters: []types.Filter{{Name: aws.String("resource-id"), Values: []string{instance}}},
	})
	if err != nil {
		return nil, fmt.Errorf("cannot describe the tags of %s: %w", instance, err)
	}
	tags := map[string]string{}
	for _, t := range out.Tags {
		tags[aws.ToString(t.Key)] = aws.ToString(t.Value)
	}
	return tags, nil
}
