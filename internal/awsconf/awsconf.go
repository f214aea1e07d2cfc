// Package awsconf makes the one AWS configuration of the agent: credentials,
// region, endpoints, proxies and certificates, from the standard AWS settings.
//
// It differs from the SDK's defaults in what matters on an instance: role
// credentials come through the agent's own metadata client, so that nothing
// falls back to IMDSv1; an unknown region is an error, never us-east-1; all
// services share one connection pool; and a connection that falls silent fails
// its attempt, so that no call hangs until the launch's deadline.
//
// Settings are handed in by the caller. The SDK reads the process environment
// by itself as well, and for these it is the only way in: profiles and
// configuration files, web identity, container credentials, retry settings.
package awsconf

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/credentials/ec2rolecreds"
	sdkimds "github.com/aws/aws-sdk-go-v2/feature/ec2/imds"
	"github.com/aws/smithy-go/logging"

	"github.com/amiagent/amiagent/internal/diag"
	"github.com/amiagent/amiagent/internal/imds"
)

// ErrNoRegion is a configuration without a region. What names its own region,
// as an S3 address does, may still use the Config that comes with it.
var ErrNoRegion = errors.New("no region is known")

// Options say where a configuration comes from. The zero Options use the
// process environment alone, and have no role credentials.
type Options struct {
	Env    func(string) string // AWS_* and proxy settings; nil knows none
	IMDS   *imds.Client        // gives role credentials; nil: there are none
	Region string              // of this machine, for when no setting names another
	Stall  time.Duration       // longest silence of a connection in use; default 30 s
}

// Config is an AWS configuration for any service's NewFromConfig.
type Config struct {
	aws.Config
	// Transport is the connection pool beneath it, with the proxies and
	// certificates of the settings, for other requests over HTTPS. It does not
	// undo compression.
	Transport *http.Transport
}

// maxAttempts is how often a call is tried in all: a fleet that starts
// together is throttled, and three tries, the SDK's default, are soon used up.
const maxAttempts = 8

// Load reads the settings. It opens no connection: credentials are got by the
// first call that needs them. A region comes from AWS_REGION, the profile, or
// Options.Region, in that order; without one, the error is ErrNoRegion and the
// Config is good but for the region.
func Load(ctx context.Context, o Options) (Config, error) {
	if o.Env == nil {
		o.Env = func(string) string { return "" }
	}
	if o.Stall == 0 {
		o.Stall = 30 * time.Second
	}
	tr, err := transport(o)
	if err != nil {
		return Config{}, fmt.Errorf("cannot configure AWS: %w", err)
	}
	load, err := settings(o)
	if err != nil {
		return Config{}, fmt.Errorf("cannot configure AWS: %w", err)
	}
	cfg, err := config.LoadDefaultConfig(ctx, load...)
	if err != nil {
		return Config{}, fmt.Errorf("cannot configure AWS: %w", err)
	}
	cfg.HTTPClient = &http.Client{Transport: tr, CheckRedirect: redirect}
	cfg.ConfigSources = append([]any{serviceEndpoints(o.Env)}, cfg.ConfigSources...)
	if cfg.RetryMaxAttempts == 0 {
		cfg.RetryMaxAttempts = maxAttempts
	}
	if cfg.Region == "" {
		cfg.Region = o.Region
	}
	if cfg.Region == "" {
		err = diag.WithHint(fmt.Errorf("cannot configure AWS: %w", ErrNoRegion),
			"set AWS_REGION; on EC2 the region comes from instance metadata")
	}
	return Config{cfg, tr}, err
}

// settings turns what the caller handed in into the SDK's terms.
func settings(o Options) ([]func(*config.LoadOptions) error, error) {
	load := []func(*config.LoadOptions) error{
		config.WithLogger(logging.Nop{}),
		// Replaced after loading. The SDK reads AWS_CA_BUNDLE of the process
		// environment into this kind of client only, and fails on any other.
		config.WithHTTPClient(awshttp.NewBuildableClient()),
		config.WithEC2RoleCredentialOptions(func(r *ec2rolecreds.Options) { r.Client = role{o.IMDS} }),
		func(l *config.LoadOptions) error {
			// Asked for the region by AWS_DEFAULTS_MODE=auto, and by nothing else.
			l.DefaultsModeOptions.IMDSClient = sdkClient(o.IMDS)
			return nil
		},
	}
	add := func(f config.LoadOptionsFunc) { load = append(load, f) }
	if region := first(o.Env, "AWS_REGION", "AWS_DEFAULT_REGION"); region != "" {
		add(config.WithRegion(region))
	}
	if id, secret := o.Env("AWS_ACCESS_KEY_ID"), o.Env("AWS_SECRET_ACCESS_KEY"); id != "" && secret != "" {
		add(config.WithCredentialsProvider(credentials.NewStaticCredentialsProvider(id, secret, o.Env("AWS_SESSION_TOKEN"))))
	}
	if endpoint := o.Env("AWS_ENDPOINT_URL"); endpoint != "" && !strings.EqualFold(o.Env("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS"), "true") {
		add(func(l *config.LoadOptions) error {
			l.BaseEndpoint = endpoint
			return nil
		})
	}
	for name, on := range map[string]config.LoadOptionsFunc{
		"AWS_USE_FIPS_ENDPOINT":      config.WithUseFIPSEndpoint(aws.FIPSEndpointStateEnabled),
		"AWS_USE_DUALSTACK_ENDPOINT": config.WithUseDualStackEndpoint(aws.DualStackEndpointStateEnabled),
	} {
		switch v := o.Env(name); {
		case strings.EqualFold(v, "true"):
			add(on)
		case v != "" && !strings.EqualFold(v, "false"):
			return nil, fmt.Errorf("%s is %q, must be true or false", name, v)
		}
	}
	return load, nil
}

func first(env func(string) string, names ...string) string {
	for _, name := range names {
		if v := env(name); v != "" {
			return v
		}
	}
	return ""
}

// serviceEndpoints answers the SDK's question for AWS_ENDPOINT_URL_S3 and its like.
type serviceEndpoints func(string) string

// GetServiceBaseEndpoint is found by the SDK by its name.
func (env serviceEndpoints) GetServiceBaseEndpoint(_ context.Context, sdkID string) (string, bool, error) {
	if strings.EqualFold(env("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS"), "true") {
		return "", false, nil
	}
	v := env("AWS_ENDPOINT_URL_" + strings.ReplaceAll(strings.ToUpper(sdkID), " ", "_"))
	return v, v != "", nil
}

// sdkClient is the SDK's own metadata client, held to version 2.
func sdkClient(c *imds.Client) *sdkimds.Client {
	o := sdkimds.Options{EnableFallback: aws.FalseTernary, ClientEnableState: sdkimds.ClientDisabled}
	if c != nil && c.Options().Off == "" {
		o.ClientEnableState, o.Endpoint = sdkimds.ClientEnabled, c.Options().Endpoints[0]
	}
	return sdkimds.New(o)
}
