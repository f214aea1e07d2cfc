package ec2sim_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	"github.com/aws/aws-sdk-go-v2/service/ssm/types"

	"github.com/amiagent/amiagent/internal/ec2sim"
)

// One batch that asks for a parameter in each way there is.
func TestGetParameters(t *testing.T) {
	i := launch(t, ec2sim.Config{Parameters: map[string]ec2sim.Parameter{
		"/web/db-password": {Type: "SecureString", Value: ec2sim.Versions{"old", "older", "hunter2"}},
		"plain":            {Value: ec2sim.Versions{"text"}},
		"/list":            {Type: "StringList", Value: ec2sim.Versions{"a,b"}},
	}})
	out, err := i.ssm().GetParameters(t.Context(), &ssm.GetParametersInput{WithDecryption: aws.Bool(true), Names: []string{
		"/web/db-password", "/web/db-password:1", "/web/db-password:4", "plain", "/missing", "/list",
		"arn:aws:ssm:eu-west-1:123456789012:parameter/plain",
		"arn:aws:ssm:eu-west-1:123456789012:parameter/web/db-password:2",
	}})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, p := range out.Parameters {
		got = append(got, fmt.Sprintf("%s %s %d %s%s", *p.Name, p.Type, p.Version, *p.Value, aws.ToString(p.Selector)))
	}
	equal(t, "parameters", got, []string{
		"/web/db-password SecureString 3 hunter2", "/web/db-password SecureString 1 old:1",
		"plain String 1 text", "/list StringList 1 a,b", "plain String 1 text", "/web/db-password SecureString 2 older:2",
	})
	equal(t, "invalid", out.InvalidParameters, []string{"/web/db-password:4", "/missing"})
	equal(t, "ARN", *out.Parameters[0].ARN, "arn:aws:ssm:eu-west-1:123456789012:parameter/web/db-password")
	if out.Parameters[0].LastModifiedDate.IsZero() {
		t.Error("no date")
	}
}

func TestSecureStringStaysEncryptedUnlessAskedFor(t *testing.T) {
	i := launch(t, ec2sim.Config{Parameters: map[string]ec2sim.Parameter{"s": {Type: "SecureString", Value: ec2sim.Versions{"hunter2"}}}})
	out, err := i.ssm().GetParameter(t.Context(), &ssm.GetParameterInput{Name: aws.String("s")})
	if err != nil {
		t.Fatal(err)
	}
	if got := *out.Parameter.Value; strings.Contains(got, "hunter2") || !strings.HasPrefix(got, "AQICAH") {
		t.Errorf("got %q, want a cipher text", got)
	}
	equal(t, "type", out.Parameter.Type, types.ParameterTypeSecureString)
}

func TestSSMErrors(t *testing.T) {
	i := launch(t, ec2sim.Config{Parameters: map[string]ec2sim.Parameter{"p": {Value: ec2sim.Versions{"v"}}}})
	_, err := i.parameter(t, "missing")
	fails(t, err, "ParameterNotFound")
	_, err = i.parameter(t, "p:2")
	fails(t, err, "ParameterVersionNotFound: Systems Manager could not find version 2 of p")
	_, err = i.parameter(t, "p:0")
	fails(t, err, "ParameterVersionNotFound")
	_, err = i.ssm().GetParameters(t.Context(), &ssm.GetParametersInput{Names: strings.Fields("a b c d e f g h i j k")})
	fails(t, err, "ValidationException")
	_, err = i.ssm().GetParameters(t.Context(), &ssm.GetParametersInput{Names: strings.Fields("a b c d e f g h i j")})
	if err != nil {
		t.Errorf("ten names: %v", err)
	}
	_, err = i.ssm().DescribeParameters(t.Context(), nil)
	fails(t, err, "UnknownOperationException: ec2sim does not serve ssm:DescribeParameters")
}

func TestPutParameterMakesVersions(t *testing.T) {
	i := launch(t, ec2sim.Config{})
	equal(t, "first version", i.PutParameter("/p", "SecureString", "one"), 1)
	equal(t, "second version", i.PutParameter("/p", "", "two"), 2)
	for name, want := range map[string]string{"/p": "two", "/p:1": "one", "/p:2": "two"} {
		if got, err := i.parameter(t, name); got != want {
			t.Errorf("%s is %q, %v", name, got, err)
		}
	}
}
