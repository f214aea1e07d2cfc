package agent

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"golang.org/x/net/http/httpproxy"

	"github.com/amiagent/amiagent/internal/diag"
	"github.com/amiagent/amiagent/internal/facts"
	"github.com/amiagent/amiagent/internal/fetch"
	"github.com/amiagent/amiagent/internal/fetch/source/file"
	"github.com/amiagent/amiagent/internal/fetch/source/git"
	"github.com/amiagent/amiagent/internal/fetch/source/https"
	"github.com/amiagent/amiagent/internal/fetch/source/s3"
	"github.com/amiagent/amiagent/internal/fetch/web"
)

// propagation is how long after boot a refusal of the instance's role may be
// for lack of news: credentials and policies take some seconds to be known everywhere.
const propagation = 2 * time.Minute

// openStore describes the store and its sources. It opens no connection, and
// reads no setting or certificate before a source is asked.
func (l *launch) openStore() *fetch.Store {
	return fetch.New(l.host, fetch.Options{
		Dir: storeDir,
		Sources: fetch.Sources{
			fetch.KindS3:    fetch.Lazy(l.s3),
			fetch.KindHTTPS: fetch.Lazy(l.https),
			fetch.KindGit:   git.New(l.host),
			fetch.KindFile:  file.New(l.host),
		},
		Parallel: l.cfg.Parallel,
		Policy:   fetch.Policy{DeniedUntil: l.settled()},
	})
}

func (l *launch) s3() (fetch.Source, error) {
	w, err := l.web()
	if err != nil {
		return nil, err
	}
	return s3.New(s3.Options{
		Region:      l.facts.Get(facts.Region),
		Credentials: aws.CredentialsProviderFunc(l.credentials),
		Anonymous:   l.facts.Get(facts.InstanceID) == "",
		Endpoint:    first(l.getenv("AWS_ENDPOINT_URL_S3"), l.getenv("AWS_ENDPOINT_URL")),
		FIPS:        l.flag("AWS_USE_FIPS_ENDPOINT"),
		DualStack:   l.flag("AWS_USE_DUALSTACK_ENDPOINT"),
		Web:         w,
	})
}

func (l *launch) https() (fetch.Source, error) {
	w, err := l.web()
	if err != nil {
		return nil, err
	}
	return https.New(w)
}

// web is what requests over HTTP heed: proxies, certificates, where they may go.
func (l *launch) web() (web.Options, error) {
	o := web.Options{
		Proxy: httpproxy.Config{
			HTTPProxy:  first(l.getenv("HTTP_PROXY"), l.getenv("http_proxy")),
			HTTPSProxy: first(l.getenv("HTTPS_PROXY"), l.getenv("https_proxy")),
			NoProxy:    first(l.getenv("NO_PROXY"), l.getenv("no_proxy")),
		},
		Loopback:  l.cfg.Loopback,
		UserAgent: "amiagent/" + l.opt.Version,
	}
	bundle := l.getenv("AWS_CA_BUNDLE")
	if bundle == "" {
		return o, nil
	}
	b, err := os.ReadFile(bundle) // of the agent's own environment, not of the machine below the root
	if err != nil {
		return o, diag.WithHint(fmt.Errorf("cannot read the certificates of AWS_CA_BUNDLE: %w", err), "it must name a file of PEM certificates")
	}
	o.CAs = b
	return o, nil
}

// settled is when refusals are final: some time after boot, or at once for a machine that has been up longer.
func (l *launch) settled() time.Time {
	if l.facts.Get(facts.InstanceID) == "" {
		return time.Time{}
	}
	b, err := l.host.ReadLimited("/proc/uptime", 128)
	if err != nil {
		return time.Time{}
	}
	var up float64
	if _, err := fmt.Sscan(string(b), &up); err != nil {
		return time.Time{}
	}
	return time.Now().Add(propagation - time.Duration(up*float64(time.Second)))
}

func (l *launch) credentials(ctx context.Context) (aws.Credentials, error) {
	cfg, err := l.awsConfig(ctx, l.facts.Get(facts.Region))
	if err != nil || cfg.Credentials == nil {
		return aws.Credentials{}, err
	}
	return cfg.Credentials.Retrieve(ctx)
}

// document reads a small document, as a layer, through the same sources.
func (l *launch) document(ctx context.Context, address string, limit int64) ([]byte, string, error) {
	return l.store.ReadDocument(ctx, address, limit)
}

func (a *Agent) flag(name string) bool {
	on, _ := strconv.ParseBool(a.getenv(name))
	return on
}

func first(words ...string) string {
	for _, w := range words {
		if w != "" {
			return w
		}
	}
	return ""
}
