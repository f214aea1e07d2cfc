package probe

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"go.yaml.in/yaml/v3"

	"github.com/amiagent/amiagent/internal/decode"
	"github.com/amiagent/amiagent/internal/diag"
)

// maxBody is how much of an answer `contains` looks at.
const maxBody = 1 << 20

// httpBody asks a web server. It goes straight to it, past any proxy, and does
// not follow redirects: what the address itself answers is what counts, as for a load balancer.
type httpBody struct {
	Timing   `yaml:",inline"`
	URL      string            `yaml:"url"`
	Method   string            `yaml:"method"`   // default GET
	Status   statuses          `yaml:"status"`   // 200, 2xx or a list of such; default 200
	Contains string            `yaml:"contains"` // text in the first MiB of the answer
	Headers  map[string]string `yaml:"headers"`
	Insecure bool              `yaml:"insecure"` // accept any certificate
}

// statuses are wanted status codes: single ones and classes such as 2xx.
type statuses []string

func (s *statuses) DecodeNode(n *yaml.Node, at diag.At) {
	*s = nil
	if n.Kind == yaml.ScalarNode {
		*s = statuses{n.Value}
		return
	}
	decode.Into(n, (*[]string)(s), at)
}

func (s statuses) match(code int) bool {
	text := strconv.Itoa(code)
	if len(s) == 0 {
		return code == http.StatusOK
	}
	return slices.ContainsFunc(s, func(want string) bool {
		return want == text || strings.HasSuffix(want, "xx") && want[:1] == text[:1]
	})
}

func (s statuses) String() string {
	if len(s) == 0 {
		return "200"
	}
	return strings.Join(s, " or ")
}

func (s statuses) validate(at diag.At) {
	for i, want := range s {
		here := at
		if len(s) > 1 {
			here = at.Index(i)
		}
		if !decode.Static(want) {
			continue
		}
		code, err := strconv.Atoi(strings.Replace(want, "xx", "00", 1))
		if err != nil || code < 100 || code > 599 || len(want) != 3 {
			here.Errorf("must be a status such as 200 or 2xx, is %q", want)
		}
	}
}

func (b *httpBody) Validate(at diag.At) {
	if b.URL == "" {
		at.Errorf("needs url")
	} else if decode.Static(b.URL) {
		u, err := url.Parse(b.URL)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
			at.Field("url").Errorf("must be an http or https address, is %q", b.URL)
		}
	}
	b.Status.validate(at.Field("status"))
	for _, name := range slices.Sorted(maps.Keys(b.Headers)) {
		if strings.ContainsAny(name, " \r\n:") || strings.ContainsAny(b.Headers[name], "\r\n") {
			at.Field("headers").Field(name).Errorf("is no header")
		}
	}
}

func (b *httpBody) Try(ctx context.Context, _ Env) error {
	method := strings.ToUpper(b.Method)
	if method == "" {
		method = http.MethodGet
	}
	req, err := http.NewRequestWithContext(ctx, method, b.URL, nil)
	if err != nil {
		return fmt.Errorf("cannot ask %s: %w", b.URL, err)
	}
	what := method + " " + req.URL.Redacted()
	req.Header.Set("User-Agent", "amiagent-probe")
	for k, v := range b.Headers {
		if strings.EqualFold(k, "host") {
			req.Host = v
		}
		req.Header.Set(k, v)
	}
	transport := &http.Transport{
		DisableKeepAlives:      true, // a kept connection may outlive the server's will to accept
		TLSClientConfig:        &tls.Config{InsecureSkipVerify: b.Insecure},
		MaxResponseHeaderBytes: 64 << 10,
	}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("%s: %w", what, short(because(ctx, err)))
	}
	defer resp.Body.Close()
	if !b.Status.match(resp.StatusCode) {
		return fmt.Errorf("%s: %s (want %s)", what, resp.Status, b.Status)
	}
	if b.Contains == "" {
		return nil
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxBody))
	if err != nil {
		return fmt.Errorf("%s: cannot read the answer: %w", what, because(ctx, err))
	}
	if !strings.Contains(string(body), b.Contains) {
		return fmt.Errorf("%s: the answer does not contain %q", what, b.Contains)
	}
	return nil
}

// short is the heart of a network error: "connection refused". What was asked
// is in the sentence already.
func short(err error) error {
	var number syscall.Errno
	if errors.As(err, &number) {
		return number
	}
	var ue *url.Error
	if errors.As(err, &ue) {
		return ue.Err
	}
	return err
}
