package ec2sim

import (
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
)

// UseCredentials makes the instance's role hand out these credentials, without
// a session token, and take no others issued before. No role of AWS does that;
// it is for an S3 beside the Sim that knows users of its own and no tokens.
func (s *Sim) UseCredentials(id, secret string) {
	now := time.Now().UTC().Truncate(time.Second)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keys = []credentials{{issued: now, Credentials: aws.Credentials{
		AccessKeyID: id, SecretAccessKey: secret, CanExpire: true, Expires: now.Add(credentialsLife),
	}}}
}
