package ec2sim_test

import (
	"context"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials/ec2rolecreds"
	"github.com/aws/aws-sdk-go-v2/feature/ec2/imds"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	"github.com/google/go-cmp/cmp"

	"github.com/amiagent/amiagent/internal/ec2sim"
)

// instance is a running Sim, with AWS's own clients as a process on it has them.
type instance struct {
	*ec2sim.Sim
	srv *ec2sim.Server
	aws aws.Config
}

// launch starts an instance. Its clients do not retry, so that a test sees each answer.
func launch(t *testing.T, cfg ec2sim.Config) *instance {
	t.Helper()
	sim := ec2sim.New(cfg)
	srv, err := sim.Start("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { srv.Close() })
	i := &instance{Sim: sim, srv: srv}
	i.aws = aws.Config{
		Region:       sim.Config().Region,
		BaseEndpoint: aws.String(srv.APIURL()),
		Credentials:  aws.NewCredentialsCache(ec2rolecreds.New(func(o *ec2rolecreds.Options) { o.Client = i.imds() })),
		Retryer:      func() aws.Retryer { return aws.NopRetryer{} },
		HTTPClient:   &http.Client{Transport: &http.Transport{}},
	}
	return i
}

func (i *instance) imds() *imds.Client {
	return imds.New(imds.Options{Endpoint: i.srv.IMDSURL(), EnableFallback: aws.FalseTernary, Retryer: aws.NopRetryer{}})
}

func (i *instance) ssm() *ssm.Client                { return ssm.NewFromConfig(i.aws) }
func (i *instance) ec2() *ec2.Client                { return ec2.NewFromConfig(i.aws) }
func (i *instance) secrets() *secretsmanager.Client { return secretsmanager.NewFromConfig(i.aws) }
func (i *instance) s3() *s3.Client                  { return s3.NewFromConfig(i.aws) }

// parameter reads one parameter; the answer or the error as text.
func (i *instance) parameter(t *testing.T, name string) (string, error) {
	t.Helper()
	out, err := i.ssm().GetParameter(t.Context(), &ssm.GetParameterInput{Name: &name, WithDecryption: aws.Bool(true)})
	if err != nil {
		return "", err
	}
	return *out.Parameter.Value, nil
}

// object reads one object.
func (i *instance) object(ctx context.Context, bucket, key string) (string, error) {
	out, err := i.s3().GetObject(ctx, &s3.GetObjectInput{Bucket: &bucket, Key: &key})
	if err != nil {
		return "", err
	}
	defer out.Body.Close()
	b, err := io.ReadAll(out.Body)
	return string(b), err
}

// fails checks that an error says something.
func fails(t *testing.T, err error, want string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("got error %v, want one that says %q", err, want)
	}
}

func equal[T any](t *testing.T, what string, got, want T) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

// A process that knows only the environment finds everything with the SDK's
// default chain: region, endpoint, and credentials from the metadata service.
func TestEnvIsAllThatAProcessNeeds(t *testing.T) {
	i := launch(t, ec2sim.Config{Region: "us-west-2", Parameters: map[string]ec2sim.Parameter{"motd": {Value: ec2sim.Versions{"hello"}}}})
	for _, name := range []string{"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"} {
		t.Setenv(name, "")
	}
	for _, kv := range i.srv.Env() {
		name, value, _ := strings.Cut(kv, "=")
		t.Setenv(name, value)
	}
	cfg, err := config.LoadDefaultConfig(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	out, err := ssm.NewFromConfig(cfg).GetParameter(t.Context(), &ssm.GetParameterInput{Name: aws.String("motd")})
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "value", *out.Parameter.Value, "hello")
	equal(t, "ARN", *out.Parameter.ARN, "arn:aws:ssm:us-west-2:123456789012:parameter/motd")
}

func TestRequestsTellWhatWasAsked(t *testing.T) {
	i := launch(t, ec2sim.Config{Buckets: map[string]ec2sim.Bucket{"acme": {Objects: map[string]ec2sim.Versions{"a/b": {"0123456789"}}}}})
	var watched []string
	i.Watch(func(r ec2sim.Request) { watched = append(watched, r.String()) })
	if _, err := i.s3().GetObject(t.Context(), &s3.GetObjectInput{Bucket: aws.String("acme"), Key: aws.String("a/b"), Range: aws.String("bytes=2-4")}); err != nil {
		t.Fatal(err)
	}
	i.parameter(t, "/nothing")
	if _, err := i.ec2().DescribeTags(t.Context(), &ec2.DescribeTagsInput{Filters: []types.Filter{{Name: aws.String("resource-id"), Values: []string{"i-0ec2517a0c0ffee00"}}}}); err != nil {
		t.Fatal(err)
	}
	want := []string{
		"imds token /latest/api/token 200",
		"imds meta-data /latest/meta-data/iam/security-credentials/ 200",
		"imds meta-data /latest/meta-data/iam/security-credentials/instance-role 200",
		"s3 GetObject /acme/a/b 206 bytes=2-4",
		"ssm GetParameter /nothing 400 ParameterNotFound",
		"ec2 DescribeTags i-0ec2517a0c0ffee00 200",
	}
	i.Watch(nil)
	var listed []string
	for _, r := range i.Requests() {
		listed = append(listed, r.String())
	}
	equal(t, "requests", listed, want)
	equal(t, "watched", watched, want)
	equal(t, "bytes sent", i.Requests()[3].Sent, 3)
	equal(t, "Count of any", i.Count("", ""), len(want))
	equal(t, "Count of GetObject", i.Count("s3", "GetObject"), 1)
	i.ForgetRequests()
	equal(t, "Count after ForgetRequests", i.Count("", ""), 0)
}

// Handler serves all on one address, for a test that brings its own server.
func TestHandlerTellsMetadataFromAPIs(t *testing.T) {
	i := launch(t, ec2sim.Config{Buckets: map[string]ec2sim.Bucket{"latest": {Objects: map[string]ec2sim.Versions{"meta-data": {"an object"}}}}})
	one := &http.Server{Handler: i.Handler()}
	t.Cleanup(func() { one.Close() })
	l := listen(t)
	go one.Serve(l)
	url := "http://" + l.Addr().String()

	out, err := imds.New(imds.Options{Endpoint: url, Retryer: aws.NopRetryer{}}).GetMetadata(t.Context(), &imds.GetMetadataInput{Path: "instance-id"})
	if err != nil {
		t.Fatal(err)
	}
	id, _ := io.ReadAll(out.Content)
	equal(t, "instance-id", string(id), i.Config().InstanceID)

	i.aws.BaseEndpoint = &url
	text, err := i.object(t.Context(), "latest", "meta-data") // a bucket that could be taken for metadata
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "object", text, "an object")
}

func TestApplyIsAnEditOfTheConfiguration(t *testing.T) {
	cfg := ec2sim.Config{
		TagsInIMDS: true, Tags: map[string]string{"Role": "web", "Old": "x"}, UserData: "one",
		Parameters: map[string]ec2sim.Parameter{"a": {Value: ec2sim.Versions{"1"}}, "gone": {Value: ec2sim.Versions{"1"}}},
		Secrets:    map[string]ec2sim.Versions{"s": {"1"}},
		Buckets:    map[string]ec2sim.Bucket{"acme": {Objects: map[string]ec2sim.Versions{"same": {"x"}, "changed": {"x"}}}},
		Faults:     []ec2sim.Fault{{Service: "ec2", Do: ec2sim.Throttle}},
	}
	i := launch(t, cfg)
	token := i.token(t)
	cfg.Tags = map[string]string{"Role": "db"}
	cfg.UserData = ""
	cfg.Parameters = map[string]ec2sim.Parameter{"a": {Value: ec2sim.Versions{"2"}}}
	cfg.Secrets = map[string]ec2sim.Versions{"s": {"2"}}
	cfg.Buckets = map[string]ec2sim.Bucket{"acme": {Objects: map[string]ec2sim.Versions{"same": {"x"}, "changed": {"y"}}}}
	cfg.Faults = nil
	i.Apply(cfg)

	if got := i.get(t, token, "/latest/meta-data/tags/instance"); got != "200 Role" {
		t.Errorf("tags are %q", got)
	}
	if got := i.get(t, token, "/latest/user-data"); !strings.HasPrefix(got, "404 ") {
		t.Errorf("user data is %q", got)
	}
	if _, err := i.ec2().DescribeTags(t.Context(), &ec2.DescribeTagsInput{}); err != nil {
		t.Errorf("the fault is still there: %v", err)
	}
	out, err := i.ssm().GetParameter(t.Context(), &ssm.GetParameterInput{Name: aws.String("a")})
	if err != nil || out.Parameter.Version != 2 || *out.Parameter.Value != "2" {
		t.Errorf("got %+v, %v, want version 2 of the parameter", out, err)
	}
	_, err = i.parameter(t, "gone")
	fails(t, err, "ParameterNotFound")
	secret, err := i.secrets().GetSecretValue(t.Context(), &secretsmanager.GetSecretValueInput{SecretId: aws.String("s"), VersionStage: aws.String("AWSPREVIOUS")})
	if err != nil || *secret.SecretString != "1" {
		t.Errorf("got %+v, %v, want the value before", secret, err)
	}
	for key, want := range map[string]string{"same": "x", "changed": "y"} {
		if got, err := i.object(t.Context(), "acme", key); err != nil || got != want {
			t.Errorf("%s is %q, %v", key, got, err)
		}
	}
}

func TestNothingAnswersAfterClose(t *testing.T) {
	i := launch(t, ec2sim.Config{Faults: []ec2sim.Fault{{Service: "imds", Operation: "meta-data", Do: ec2sim.Hang}}})
	done := make(chan error)
	go func() {
		_, err := i.imds().GetMetadata(context.Background(), &imds.GetMetadataInput{Path: "mac"})
		done <- err
	}()
	for i.Count("imds", "token") == 0 { // the next request hangs
		time.Sleep(time.Millisecond)
	}
	i.srv.Close()
	if err := <-done; err == nil {
		t.Error("a request that hung got an answer")
	}
	if _, err := http.Get(i.srv.APIURL()); err == nil {
		t.Error("the APIs still listen")
	}
}

func TestStartTellsWhyItCannotListen(t *testing.T) {
	i := launch(t, ec2sim.Config{})
	_, err := ec2sim.New(ec2sim.Config{}).Listen(strings.TrimPrefix(i.srv.IMDSURL(), "http://"), "127.0.0.1:0")
	fails(t, err, "cannot listen for the metadata service: ")
	_, err = ec2sim.New(ec2sim.Config{}).Listen("127.0.0.1:0", strings.TrimPrefix(i.srv.APIURL(), "http://"))
	fails(t, err, "cannot listen for the APIs: ")
	_, err = ec2sim.New(ec2sim.Config{}).Start("nonsense")
	fails(t, err, `cannot listen on "nonsense": `)
}

// Every setter runs beside requests; the race detector watches.
func TestSettersAreSafeWhileServing(t *testing.T) {
	i := launch(t, ec2sim.Config{TagsInIMDS: true})
	token := i.token(t)
	stop := make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		for n := 0; ; n++ {
			select {
			case <-stop:
				return
			default:
			}
			i.SetTag("Role", "web")
			i.DeleteTag("Role")
			i.SetUserData([]byte("x"))
			i.SetTargetState("InService")
			i.SetTagsInIMDS(n%2 == 0)
			i.PutParameter("p", "String", "v")
			i.PutSecret("s", "v")
			i.PutObject("b", "k", []byte("v"))
			i.SetFault(ec2sim.Fault{Service: "ec2", Do: ec2sim.Throttle})
			i.ClearFaults()
			i.Requests()
		}
	}()
	for range 20 {
		i.get(t, token, "/latest/meta-data/tags/instance/Role")
		i.parameter(t, "p")
		i.object(t.Context(), "b", "k")
	}
	close(stop)
	<-done
	if !slices.ContainsFunc(i.Requests(), func(r ec2sim.Request) bool { return r.Service == "s3" }) {
		t.Error("nothing was asked")
	}
}

func staticKey(sim *ec2sim.Sim) func(context.Context) (aws.Credentials, error) {
	return func(context.Context) (aws.Credentials, error) { return sim.Credentials(), nil }
}
