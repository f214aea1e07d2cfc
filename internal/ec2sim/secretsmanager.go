package ec2sim

import (
	"crypto/sha256"
	"encoding/base32"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
)

type secretVersion struct {
	id      string
	value   string
	created time.Time
}

// PutSecret writes a new version of a secret, made when it does not exist. It
// becomes AWSCURRENT, and the one before it AWSPREVIOUS.
func (s *Sim) PutSecret(name, value string) (versionID string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.addSecret(name, value)
}

func (s *Sim) addSecret(name, value string) string {
	v := secretVersion{requestID(), value, time.Now()}
	s.secrets[name] = append(s.secrets[name], v)
	return v.id
}

// putSecret brings a secret to the last of values. Callers hold s.mu.
func (s *Sim) putSecret(name string, values Versions) {
	if have := s.secrets[name]; len(have) > 0 && len(values) > 0 {
		if values[len(values)-1] == have[len(have)-1].value {
			return
		}
		values = values[len(values)-1:]
	}
	for _, v := range values {
		s.addSecret(name, v)
	}
}

// maxSecrets is how many secrets one BatchGetSecretValue may ask for.
// https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_BatchGetSecretValue.html
const maxSecrets = 20

func secretsOperations() map[string]operation {
	return map[string]operation{
		"GetSecretValue":      onJSON(func(in getSecretInput) []string { return []string{in.SecretId} }, getSecret),
		"BatchGetSecretValue": onJSON(func(in batchGetSecretInput) []string { return in.SecretIdList }, batchGetSecret),
	}
}

type getSecretInput struct{ SecretId, VersionId, VersionStage string }

type batchGetSecretInput struct{ SecretIdList []string }

type secretValue struct {
	ARN           string
	CreatedDate   float64
	Name          string
	SecretString  string
	VersionId     string
	VersionStages []string
}

type secretError struct{ SecretId, ErrorCode, Message string }

type batchGetSecretOutput struct {
	SecretValues []secretValue
	Errors       []secretError
}

func getSecret(c *call, in getSecretInput) (secretValue, *apiError) {
	c.sim.mu.Lock()
	defer c.sim.mu.Unlock()
	name := c.sim.secretName(in.SecretId)
	versions := c.sim.secrets[name]
	if len(versions) == 0 || c.hidden(in.SecretId) {
		return secretValue{}, &apiError{status: http.StatusBadRequest, code: "ResourceNotFoundException",
			message: "Secrets Manager can't find the specified secret."}
	}
	last := len(versions) - 1
	for i, v := range slices.Backward(versions) {
		var stages []string
		switch i {
		case last:
			stages = []string{"AWSCURRENT"}
		case last - 1:
			stages = []string{"AWSPREVIOUS"}
		}
		byID := in.VersionId == "" || in.VersionId == v.id
		byStage := in.VersionStage == "" && (in.VersionId != "" || i == last) || slices.Contains(stages, in.VersionStage)
		if byID && byStage {
			return secretValue{
				ARN: c.sim.secretARN(name), CreatedDate: epoch(v.created), Name: name,
				SecretString: v.value, VersionId: v.id, VersionStages: stages,
			}, nil
		}
	}
	which := "staging label: " + in.VersionStage
	if in.VersionId != "" {
		which = "VersionId: " + in.VersionId
	}
	return secretValue{}, &apiError{status: http.StatusBadRequest, code: "ResourceNotFoundException",
		message: "Secrets Manager can't find the specified secret value for " + which}
}

func batchGetSecret(c *call, in batchGetSecretInput) (batchGetSecretOutput, *apiError) {
	out := batchGetSecretOutput{SecretValues: []secretValue{}, Errors: []secretError{}}
	if n := len(in.SecretIdList); n == 0 || n > maxSecrets {
		return out, validation(fmt.Sprintf("1 validation error detected: Value at 'secretIdList' failed to satisfy constraint: "+
			"Member must have length less than or equal to %d and greater than or equal to 1", maxSecrets))
	}
	for _, id := range in.SecretIdList {
		if v, err := getSecret(c, getSecretInput{SecretId: id}); err != nil {
			out.Errors = append(out.Errors, secretError{id, err.code, err.message})
		} else {
			out.SecretValues = append(out.SecretValues, v)
		}
	}
	return out, nil
}

// secretName resolves a name, an ARN, or an ARN without its random end.
func (s *Sim) secretName(id string) string {
	for name := range s.secrets {
		arn := s.secretARN(name)
		if id == arn || id == arn[:len(arn)-7] {
			return name
		}
	}
	return id
}

// secretARN ends in a hyphen and six characters that the service chose.
func (s *Sim) secretARN(name string) string {
	sum := sha256.Sum256([]byte(name))
	return s.cfg.arn("secretsmanager", "secret:"+name+"-"+strings.ToLower(base32.StdEncoding.EncodeToString(sum[:])[:6]))
}
