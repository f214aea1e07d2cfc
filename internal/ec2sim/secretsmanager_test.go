package ec2sim_test

import (
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"

	"github.com/amiagent/amiagent/internal/ec2sim"
)

func TestGetSecretValue(t *testing.T) {
	i := launch(t, ec2sim.Config{Secrets: map[string]ec2sim.Versions{"web/api": {"v0", "v1"}}})
	second := i.PutSecret("web/api", "v2")
	get := func(in *secretsmanager.GetSecretValueInput) (*secretsmanager.GetSecretValueOutput, error) {
		return i.secrets().GetSecretValue(t.Context(), in)
	}
	now, err := get(&secretsmanager.GetSecretValueInput{SecretId: aws.String("web/api")})
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "current", *now.SecretString, "v2")
	equal(t, "its id", *now.VersionId, second)
	equal(t, "its stages", now.VersionStages, []string{"AWSCURRENT"})

	for name, c := range map[string]struct {
		in   secretsmanager.GetSecretValueInput
		want string
	}{
		"by ARN":           {secretsmanager.GetSecretValueInput{SecretId: now.ARN}, "v2"},
		"by partial ARN":   {secretsmanager.GetSecretValueInput{SecretId: aws.String((*now.ARN)[:len(*now.ARN)-7])}, "v2"},
		"by id":            {secretsmanager.GetSecretValueInput{SecretId: now.Name, VersionId: &second}, "v2"},
		"the one before":   {secretsmanager.GetSecretValueInput{SecretId: now.Name, VersionStage: aws.String("AWSPREVIOUS")}, "v1"},
		"by id and stage":  {secretsmanager.GetSecretValueInput{SecretId: now.Name, VersionId: &second, VersionStage: aws.String("AWSCURRENT")}, "v2"},
		"by current stage": {secretsmanager.GetSecretValueInput{SecretId: now.Name, VersionStage: aws.String("AWSCURRENT")}, "v2"},
	} {
		if out, err := get(&c.in); err != nil || *out.SecretString != c.want {
			t.Errorf("%s: %+v, %v", name, out, err)
		}
	}
	_, err = get(&secretsmanager.GetSecretValueInput{SecretId: aws.String("nothing")})
	fails(t, err, "ResourceNotFoundException: Secrets Manager can't find the specified secret.")
	_, err = get(&secretsmanager.GetSecretValueInput{SecretId: now.Name, VersionStage: aws.String("PENDING")})
	fails(t, err, "can't find the specified secret value for staging label: PENDING")
	_, err = get(&secretsmanager.GetSecretValueInput{SecretId: now.Name, VersionId: &second, VersionStage: aws.String("AWSPREVIOUS")})
	fails(t, err, "can't find the specified secret value for VersionId: "+second)
}

func TestBatchGetSecretValue(t *testing.T) {
	i := launch(t, ec2sim.Config{Secrets: map[string]ec2sim.Versions{"a": {"1"}, "b": {"2"}}})
	batch := func(ids ...string) (*secretsmanager.BatchGetSecretValueOutput, error) {
		return i.secrets().BatchGetSecretValue(t.Context(), &secretsmanager.BatchGetSecretValueInput{SecretIdList: ids})
	}
	out, err := batch("b", "missing", "a")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, s := range out.SecretValues {
		got = append(got, *s.Name+"="+*s.SecretString)
	}
	equal(t, "values", got, []string{"b=2", "a=1"})
	equal(t, "missing", *out.Errors[0].SecretId+" "+*out.Errors[0].ErrorCode, "missing ResourceNotFoundException")
	_, err = batch(make([]string, 21)...)
	fails(t, err, "ValidationException")
}

func secretInput(id string) *secretsmanager.GetSecretValueInput {
	return &secretsmanager.GetSecretValueInput{SecretId: &id}
}
