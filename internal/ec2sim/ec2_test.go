package ec2sim_test

import (
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/amiagent/amiagent/internal/ec2sim"
)

// tags asks for tags by filters given as name and value in turn: key=value for each.
func (i *instance) tags(t *testing.T, filters ...string) ([]string, error) {
	t.Helper()
	in := &ec2.DescribeTagsInput{}
	for n := 0; n < len(filters); n += 2 {
		in.Filters = append(in.Filters, types.Filter{Name: &filters[n], Values: []string{filters[n+1]}})
	}
	out, err := i.ec2().DescribeTags(t.Context(), in)
	if err != nil {
		return nil, err
	}
	got := []string{}
	for _, tag := range out.Tags {
		if tag.ResourceType != types.ResourceTypeInstance || *tag.ResourceId != i.Config().InstanceID {
			t.Errorf("a tag of %s %s", tag.ResourceType, *tag.ResourceId)
		}
		got = append(got, *tag.Key+"="+*tag.Value)
	}
	return got, nil
}

func TestDescribeTags(t *testing.T) {
	i := launch(t, ec2sim.Config{InstanceID: "i-1", Tags: map[string]string{"Role": "web", "Env": "a/b [c] <d>", "Empty": ""}})
	for _, c := range []struct {
		filters []string
		want    []string
	}{
		{nil, []string{"Empty=", "Env=a/b [c] <d>", "Role=web"}},
		{[]string{"resource-id", "i-1"}, []string{"Empty=", "Env=a/b [c] <d>", "Role=web"}},
		{[]string{"resource-id", "i-2"}, []string{}},
		{[]string{"resource-id", "i-1", "key", "Role"}, []string{"Role=web"}},
		{[]string{"resource-type", "volume"}, []string{}},
		{[]string{"key", "E*"}, []string{"Empty=", "Env=a/b [c] <d>"}},
		{[]string{"value", "a* [c]*"}, []string{"Env=a/b [c] <d>"}},
		{[]string{"tag:Role", "w?b"}, []string{"Role=web"}},
	} {
		got, err := i.tags(t, c.filters...)
		if err != nil {
			t.Fatal(err)
		}
		equal(t, "filters", got, c.want)
	}
	_, err := i.tags(t, "color", "red")
	fails(t, err, "InvalidParameterValue: The filter 'color' is invalid")
	_, err = i.ec2().DescribeInstances(t.Context(), nil)
	fails(t, err, "InvalidAction: ec2sim does not serve ec2:DescribeInstances")
}

// A new instance's tags may not be there yet.
func TestDescribeTagsNotYet(t *testing.T) {
	i := launch(t, ec2sim.Config{Tags: map[string]string{"Role": "web"}, Faults: []ec2sim.Fault{{Service: "ec2", Do: ec2sim.Absent, Count: 1}}})
	for _, want := range [][]string{{}, {"Role=web"}} {
		got, err := i.tags(t, "resource-id", i.Config().InstanceID)
		if err != nil {
			t.Fatal(err)
		}
		equal(t, "tags", got, want)
	}
}
