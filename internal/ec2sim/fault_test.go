package ec2sim_test

import (
	"context"
	"errors"
	"io"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/ssm"

	"github.com/amiagent/amiagent/internal/ec2sim"
)

var everything = ec2sim.Config{
	Role: "web", InstanceID: "i-1", TagsInIMDS: true, Tags: map[string]string{"Role": "web"},
	Parameters: map[string]ec2sim.Parameter{"/web/a": {Value: ec2sim.Versions{"A"}}, "/web/b": {Value: ec2sim.Versions{"B"}}},
	Secrets:    map[string]ec2sim.Versions{"s": {"S"}},
	Buckets:    map[string]ec2sim.Bucket{"acme": {Objects: map[string]ec2sim.Versions{"k": {"0123456789"}, "l": {"0123456789"}}}},
}

// Each service says each fault in its own words.
func TestFaultsInTheServicesOwnShape(t *testing.T) {
	ask := map[string]func(i *instance) error{
		"imds": func(i *instance) error { _, err := i.imds().GetIAMInfo(t.Context(), nil); return err },
		"ec2":  func(i *instance) error { _, err := i.tags(t); return err },
		"ssm":  func(i *instance) error { _, err := i.parameter(t, "/web/a"); return err },
		"secretsmanager": func(i *instance) error {
			_, err := i.secrets().GetSecretValue(t.Context(), secretInput("s"))
			return err
		},
		"s3": func(i *instance) error { _, err := i.object(t.Context(), "acme", "k"); return err },
	}
	who := "User: arn:aws:sts::123456789012:assumed-role/web/i-1 is not authorized to perform: "
	for _, c := range []struct {
		service string
		fault   ec2sim.Fault
		want    []string
	}{
		{"imds", ec2sim.Fault{Do: ec2sim.Fail}, []string{"StatusCode: 500"}},
		{"imds", ec2sim.Fault{Do: ec2sim.Throttle}, []string{"StatusCode: 503"}},
		{"imds", ec2sim.Fault{Do: ec2sim.Absent, Operation: "meta-data"}, []string{"StatusCode: 404"}},
		{"imds", ec2sim.Fault{Do: ec2sim.Deny}, []string{"403"}},
		{"ec2", ec2sim.Fault{Do: ec2sim.Fail}, []string{"StatusCode: 500", "InternalError"}},
		{"ec2", ec2sim.Fault{Do: ec2sim.Throttle}, []string{"StatusCode: 503", "RequestLimitExceeded: Request limit exceeded."}},
		{"ec2", ec2sim.Fault{Do: ec2sim.Deny}, []string{"StatusCode: 403", "UnauthorizedOperation: ", who + "ec2:DescribeTags because"}},
		{"ssm", ec2sim.Fault{Do: ec2sim.Fail}, []string{"StatusCode: 500", "InternalServerError"}},
		{"ssm", ec2sim.Fault{Do: ec2sim.Throttle}, []string{"StatusCode: 400", "ThrottlingException: Rate exceeded"}},
		{"ssm", ec2sim.Fault{Do: ec2sim.Absent}, []string{"StatusCode: 400", "ParameterNotFound"}},
		{"ssm", ec2sim.Fault{Do: ec2sim.Deny}, []string{"StatusCode: 400", "AccessDeniedException: ",
			who + "ssm:GetParameter on resource: arn:aws:ssm:eu-west-1:123456789012:parameter/web/a because"}},
		{"secretsmanager", ec2sim.Fault{Do: ec2sim.Absent}, []string{"StatusCode: 400", "ResourceNotFoundException"}},
		{"secretsmanager", ec2sim.Fault{Do: ec2sim.Deny}, []string{"AccessDeniedException", who + "secretsmanager:GetSecretValue on resource"}},
		{"s3", ec2sim.Fault{Do: ec2sim.Fail}, []string{"StatusCode: 500", "InternalError"}},
		{"s3", ec2sim.Fault{Do: ec2sim.Fail, Status: 503, Code: "ServiceUnavailable"}, []string{"StatusCode: 503", "ServiceUnavailable"}},
		{"s3", ec2sim.Fault{Do: ec2sim.Throttle}, []string{"StatusCode: 503", "SlowDown: Please reduce your request rate."}},
		{"s3", ec2sim.Fault{Do: ec2sim.Absent}, []string{"StatusCode: 404", "NoSuchKey"}},
		{"s3", ec2sim.Fault{Do: ec2sim.Absent, Path: "/acme"}, []string{"StatusCode: 404", "NoSuchBucket"}},
		{"s3", ec2sim.Fault{Do: ec2sim.Deny}, []string{"StatusCode: 403", "AccessDenied", who + "s3:GetObject on resource: arn:aws:s3:::acme/k because"}},
	} {
		i := launch(t, everything)
		c.fault.Service, c.fault.Count = c.service, 1
		i.SetFault(c.fault)
		err := ask[c.service](i)
		for _, want := range c.want {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s %s: got %v, want %q", c.service, c.fault.Do, err, want)
			}
		}
		if err := ask[c.service](i); err != nil {
			t.Errorf("%s %s: the fault stays after its one request: %v", c.service, c.fault.Do, err)
		}
	}
}

func TestAbsentHidesOnlyWhatItNames(t *testing.T) {
	i := launch(t, everything)
	i.SetFault(ec2sim.Fault{Service: "ssm", Path: "/web/b", Do: ec2sim.Absent})
	i.SetFault(ec2sim.Fault{Service: "s3", Path: "/acme/k", Do: ec2sim.Absent})
	i.SetFault(ec2sim.Fault{Service: "imds", Path: "/latest/meta-data/tags/", Do: ec2sim.Absent})
	out, err := i.ssm().GetParameters(t.Context(), parametersInput("/web/a", "/web/b"))
	if err != nil || len(out.Parameters) != 1 || len(out.InvalidParameters) != 1 || out.InvalidParameters[0] != "/web/b" {
		t.Errorf("parameters: %+v, %v", out, err)
	}
	_, err = i.object(t.Context(), "acme", "k")
	fails(t, err, "NoSuchKey")
	if _, err := i.object(t.Context(), "acme", "l"); err != nil {
		t.Error(err)
	}
	token := i.token(t)
	if got := i.get(t, token, "/latest/meta-data/tags/instance"); got[:3] != "404" {
		t.Errorf("tags: %s", got)
	}
	if got := i.get(t, token, "/latest/meta-data/mac"); got[:3] != "200" {
		t.Errorf("mac: %s", got)
	}
	i.ClearFaults()
	if _, err := i.object(t.Context(), "acme", "k"); err != nil {
		t.Error(err)
	}
}

func TestSkipAndCount(t *testing.T) {
	i := launch(t, everything)
	i.SetFault(ec2sim.Fault{Service: "s3", Operation: "GetObject", Skip: 1, Count: 2, Do: ec2sim.Throttle})
	i.SetFault(ec2sim.Fault{Service: "s3", Skip: 3, Count: 1, Do: ec2sim.Fail}) // sees what the first lets pass
	var story []string
	for range 7 {
		_, err := i.object(t.Context(), "acme", "k")
		switch {
		case err == nil:
			story = append(story, "ok")
		case strings.Contains(err.Error(), "SlowDown"):
			story = append(story, "slow")
		default:
			story = append(story, "broken")
		}
	}
	equal(t, "story", strings.Join(story, " "), "ok slow slow ok ok broken ok")
}

// The SDK's own retries see a throttle and get through.
func TestThrottleIsRetried(t *testing.T) {
	i := launch(t, everything)
	i.aws.Retryer = func() aws.Retryer {
		return retry.NewStandard(func(o *retry.StandardOptions) {
			o.Backoff = retry.BackoffDelayerFunc(func(int, error) (time.Duration, error) { return 0, nil })
		})
	}
	i.SetFault(ec2sim.Fault{Service: "s3", Do: ec2sim.Throttle, Count: 2})
	if text, err := i.object(t.Context(), "acme", "k"); text != "0123456789" {
		t.Error(err)
	}
	equal(t, "requests", i.Count("s3", "GetObject"), 3)
}

func TestLatencyAddsUp(t *testing.T) {
	i := launch(t, everything)
	i.parameter(t, "/web/a") // credentials
	i.SetFault(ec2sim.Fault{Service: "ssm", Latency: 30 * time.Millisecond})
	i.SetFault(ec2sim.Fault{Latency: 30 * time.Millisecond})
	began := time.Now()
	if _, err := i.parameter(t, "/web/a"); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took < 60*time.Millisecond {
		t.Errorf("took %s", took)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	i.SetFault(ec2sim.Fault{Latency: time.Hour})
	_, err := i.object(ctx, "acme", "k")
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}

func TestHangEndsWithTheClient(t *testing.T) {
	i := launch(t, everything)
	i.parameter(t, "/web/a") // credentials
	i.ForgetRequests()
	i.SetFault(ec2sim.Fault{Service: "s3", Do: ec2sim.Hang})
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	_, err := i.object(ctx, "acme", "k")
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	for i.Count("s3", "") == 0 {
		time.Sleep(time.Millisecond)
	}
	equal(t, "record", i.Requests()[0].String(), "s3 GetObject /acme/k 0 (fault: hang)")
}

func TestReset(t *testing.T) {
	i := launch(t, everything)
	i.SetFault(ec2sim.Fault{Service: "ssm", Do: ec2sim.Reset, Count: 1})
	if _, err := i.parameter(t, "/web/a"); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("got %v, want a reset connection", err)
	}
	if _, err := i.parameter(t, "/web/a"); err != nil {
		t.Errorf("the next connection fails too: %v", err)
	}
}

func TestTruncate(t *testing.T) {
	i := launch(t, everything)
	i.SetFault(ec2sim.Fault{Service: "s3", Do: ec2sim.Truncate, At: 4})
	out, err := i.s3().GetObject(t.Context(), &s3.GetObjectInput{Bucket: aws.String("acme"), Key: aws.String("k")})
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(out.Body)
	if !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("the cut gave error %v", err)
	}
	equal(t, "announced", *out.ContentLength, 10)
	equal(t, "arrived", string(b), "0123")
	for i.Count("s3", "") == 0 {
		time.Sleep(time.Millisecond)
	}
	equal(t, "sent", i.Requests()[len(i.Requests())-1].Sent, 4)
}

func TestCorrupt(t *testing.T) {
	i := launch(t, everything)
	i.SetFault(ec2sim.Fault{Service: "s3", Do: ec2sim.Corrupt, At: 4})
	equalText := func(what, key, want string) {
		t.Helper()
		if got, err := i.object(t.Context(), "acme", key); err != nil || got != want {
			t.Errorf("%s: %q, %v", what, got, err)
		}
	}
	equalText("corrupt", "k", "0123"+string([]byte{'4' ^ 0xff})+"56789")
	i.ClearFaults()
	equalText("afterwards", "k", "0123456789") // what is kept was not touched
}

// A large body goes over the wire in many pieces; the offset is that of the body.
func TestFaultsDeepInTheBody(t *testing.T) {
	i := launch(t, everything)
	big := strings.Repeat("x", 300_000)
	i.PutObject("acme", "big", []byte(big))
	i.SetFault(ec2sim.Fault{Path: "/acme/big", Do: ec2sim.Corrupt, At: 200_000, Count: 1})
	i.SetFault(ec2sim.Fault{Path: "/acme/big", Do: ec2sim.Truncate, At: 299_999})
	got, err := i.object(t.Context(), "acme", "big")
	if err != nil || len(got) != len(big) || strings.Count(got, "x") != len(big)-1 || got[200_000] == 'x' {
		t.Errorf("corrupt: %d bytes, %v", len(got), err)
	}
	got, err = i.object(t.Context(), "acme", "big")
	if len(got) != 299_999 || err == nil {
		t.Errorf("truncate: %d bytes, %v", len(got), err)
	}
}

func parametersInput(names ...string) *ssm.GetParametersInput {
	return &ssm.GetParametersInput{Names: names}
}
