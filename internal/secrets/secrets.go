// Package secrets reads what templates ask for with {{ secret "…" }}: SSM
// parameters and Secrets Manager secrets, in as few calls as the APIs allow.
// Values stay in memory; errors never hold one.
package secrets

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	smtypes "github.com/aws/aws-sdk-go-v2/service/secretsmanager/types"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	"github.com/aws/smithy-go"

	"github.com/amiagent/amiagent/internal/diag"
)

// Reader reads secrets. It holds method values, not clients: a client in an
// interface would keep all of its API in the binary.
type Reader struct {
	parameters func(context.Context, *ssm.GetParametersInput, ...func(*ssm.Options)) (*ssm.GetParametersOutput, error)
	secret     func(context.Context, *secretsmanager.GetSecretValueInput, ...func(*secretsmanager.Options)) (*secretsmanager.GetSecretValueOutput, error)
	batch      func(context.Context, *secretsmanager.BatchGetSecretValueInput, ...func(*secretsmanager.Options)) (*secretsmanager.BatchGetSecretValueOutput, error)
}

// New makes a reader. It opens no connection.
func New(cfg aws.Config) *Reader {
	sm := secretsmanager.NewFromConfig(cfg)
	return &Reader{parameters: ssm.NewFromConfig(cfg).GetParameters, secret: sm.GetSecretValue, batch: sm.BatchGetSecretValue}
}

const (
	ssmBatch = 10 // GetParameters: at most 10 names (API reference)
	smBatch  = 20 // BatchGetSecretValue: at most 20 ids (API reference)
)

// Read gives the values of all refs ("ssm:/path", "secretsmanager:name#key") that can be read,
// and for each other one why not. It returns when ctx ends; what is missing then has its cause as reason.
func (r *Reader) Read(ctx context.Context, refs []string) (values map[string]string, failed map[string]error) {
	values, failed = map[string]string{}, map[string]error{}
	bySecret := map[string][]string{} // Secrets Manager id → refs, which may name several keys of it
	var names []string
	for _, ref := range refs {
		scheme, name, _ := strings.Cut(ref, ":")
		switch scheme {
		case "ssm":
			names = append(names, name)
		case "secretsmanager":
			id, _, _ := strings.Cut(name, "#")
			bySecret[id] = append(bySecret[id], ref)
		default:
			failed[ref] = fmt.Errorf("%q names no secret", ref)
		}
	}
	for batch := range slices.Chunk(names, ssmBatch) {
		r.ssm(ctx, batch, values, failed)
	}
	for batch := range slices.Chunk(slices.Sorted(maps.Keys(bySecret)), smBatch) {
		for id, got := range r.secretsManager(ctx, batch) {
			for _, ref := range bySecret[id] {
				v, err := got.pick(ref)
				if err != nil {
					failed[ref] = err
				} else {
					values[ref] = v
				}
			}
		}
	}
	return values, failed
}

func (r *Reader) ssm(ctx context.Context, names []string, values map[string]string, failed map[string]error) {
	out, err := r.parameters(ctx, &ssm.GetParametersInput{Names: names, WithDecryption: aws.Bool(true)})
	if err != nil {
		for _, n := range names {
			failed["ssm:"+n] = explain(ctx, err, "ssm:GetParameters")
		}
		return
	}
	for _, p := range out.Parameters {
		// A name with a selector ("name:3") comes back without it. It is another
		// value than that of the name alone.
		selector := aws.ToString(p.Selector)
		for _, n := range names {
			if n == aws.ToString(p.Name)+selector || n == aws.ToString(p.ARN)+selector {
				values["ssm:"+n] = aws.ToString(p.Value)
			}
		}
	}
	for _, n := range names {
		if _, ok := values["ssm:"+n]; !ok {
			failed["ssm:"+n] = diag.WithHint(absent{fmt.Errorf("there is no SSM parameter %s", n)},
				"`aws ssm get-parameter --name %s` in this account and region tells", n)
		}
	}
}

type secretValue struct {
	text string
	err  error
}

// pick gives the whole secret, or one key of its JSON.
func (s secretValue) pick(ref string) (string, error) {
	if s.err != nil {
		return "", s.err
	}
	name, key, ok := strings.Cut(ref, "#")
	if !ok {
		return s.text, nil
	}
	var m map[string]any
	if err := json.Unmarshal([]byte(s.text), &m); err != nil {
		return "", fmt.Errorf("cannot take the key %s: %s is not a JSON object", key, name)
	}
	switch v := m[key].(type) {
	case nil:
		return "", diag.WithHint(fmt.Errorf("%s has no key %q", name, key), "it has the keys %s", strings.Join(slices.Sorted(maps.Keys(m)), ", "))
	case string:
		return v, nil
	default:
		b, _ := json.Marshal(v)
		return string(b), nil
	}
}

// secretsManager reads ids in one call where that is more than one. Reading in
// batches is a permission of its own, so a refusal falls back to single reads.
func (r *Reader) secretsManager(ctx context.Context, ids []string) map[string]secretValue {
	got := map[string]secretValue{}
	if len(ids) > 1 {
		out, err := r.batch(ctx, &secretsmanager.BatchGetSecretValueInput{SecretIdList: ids})
		if err == nil {
			for _, v := range out.SecretValues {
				for _, id := range ids {
					if id == aws.ToString(v.Name) || id == aws.ToString(v.ARN) {
						got[id] = secretValue{text: text(v)}
					}
				}
			}
		}
	}
	for _, id := range ids {
		if _, ok := got[id]; ok {
			continue
		}
		out, err := r.secret(ctx, &secretsmanager.GetSecretValueInput{SecretId: aws.String(id)})
		if err != nil {
			got[id] = secretValue{err: explain(ctx, err, "secretsmanager:GetSecretValue")}
			continue
		}
		got[id] = secretValue{text: text(smtypes.SecretValueEntry{SecretString: out.SecretString, SecretBinary: out.SecretBinary})}
	}
	return got
}

func text(v smtypes.SecretValueEntry) string {
	if v.SecretString != nil {
		return *v.SecretString
	}
	return string(v.SecretBinary)
}

// explain turns an API error into one sentence without the SDK's envelope. The
// caller knows which secret it is about.
func explain(ctx context.Context, err error, action string) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	var api smithy.APIError
	if !errors.As(err, &api) {
		return err
	}
	e := fmt.Errorf("%s: %s", api.ErrorCode(), api.ErrorMessage())
	if strings.Contains(api.ErrorCode(), "AccessDenied") {
		return diag.WithHint(e, "allow %s on it for the instance's role, and kms:Decrypt on its key", action)
	}
	return e
}
