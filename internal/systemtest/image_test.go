//go:build system

package systemtest

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/amiagent/amiagent/internal/ec2sim"
)

// password is a secret, odd enough to be found wherever it does not belong.
const password = "Tr0ub4dor&3-battery-staple"

// webCloud is the account of a web server.
func webCloud(t *testing.T) *cloud {
	t.Helper()
	c := newCloud(t, ec2sim.Config{
		InstanceID: "i-0123456789abcdef0",
		Tags:       map[string]string{"Name": "web-1", "Role": "web", "Color": "blue"},
		TagsInIMDS: true,
		Parameters: map[string]ec2sim.Parameter{"/web/db-password": {Type: "SecureString", Value: ec2sim.Versions{password}}},
	})
	bytes, err := app()
	if err != nil {
		t.Fatal(err)
	}
	c.put("acme-artifacts", "app.tar.zst", []byte("an older version"))
	c.SetTag("AppVersion", c.put("acme-artifacts", "app.tar.zst", bytes))
	c.put("acme-artifacts", "app.tar.zst", []byte("a newer version, which the manifest does not name"))
	c.put("acme-manifests", "web.yaml", fmt.Appendf(nil, webManifest, sha256.Sum256(bytes)))
	return c
}

// app is the archive of the service, built once.
var app = sync.OnceValues(func() ([]byte, error) {
	file, err := goBuild("app", "./internal/systemtest/testdata/app", "-ldflags=-s -w")
	if err != nil {
		return nil, err
	}
	program, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	z, err := zstd.NewWriter(&b)
	if err != nil {
		return nil, err
	}
	w := tar.NewWriter(z)
	err = w.WriteHeader(&tar.Header{Name: "app/bin/app", Mode: 0o755, Size: int64(len(program))})
	if err == nil {
		_, err = w.Write(program)
	}
	if err == nil {
		err = w.Close()
	}
	if err == nil {
		err = z.Close()
	}
	return b.Bytes(), err
})

const agentConfig = `
amiagent: 1
patience: 2s
layers:
  - /etc/amiagent/manifest.d
  - s3://acme-manifests/{{ tag "Role" }}.yaml
`

// baseManifest is what all machines of the image should be.
const baseManifest = `
amiagent: 1
name: web
packages:
  greeter: {version: "1.*"}
sysctl:
  net.core.somaxconn: {value: 512}
groups:
  readers: {system: true}
users:
  app: {system: true, home: /var/lib/app, groups: [readers]}
`

// webManifest is the role's; %x is the artifact's digest.
const webManifest = `
amiagent: 1
artifacts:
  app:
    source: s3://acme-artifacts/app.tar.zst?versionId={{ tag "AppVersion" }}
    digest: sha256:%x
    unpack: /opt/app
    strip: 1
files:
  /etc/app: {directory: true, owner: app, mode: "0750"}
  /etc/app/app.conf:
    template: |
      color = {{ tag "Color" }}
      instance = {{ .InstanceID }}
      password = {{ secret "ssm:/web/db-password" }}
    owner: app
    mode: "0600"
    check: [/opt/app/bin/app, check, "%%s"]
  /etc/motd: {content: "made by amiagent\n"}
  /usr/local/bin/app: {link: /opt/app/bin/app}
commands:
  warm:
    run: [app, warm, /var/lib/app/cache]
    creates: /var/lib/app/cache
    user: app
  greet:
    run: [sh, -c, "greeter >>/var/lib/greeted; cat /etc/app/app.conf"]
units:
  app.service:
    content: |
      [Service]
      ExecStart=/usr/local/bin/app serve /etc/app/app.conf
      User=app
      [Install]
      WantedBy=multi-user.target
    enabled: true
    state: started
    restart-on: [artifacts.app, files./etc/app/app.conf]
  behind-agent.service: &late
    content: |
      [Unit]
      After=amiagent.service
      [Service]
      Type=oneshot
      RemainAfterExit=yes
      ExecStart=/bin/cp /run/amiagent/status.json /run/%%n
      [Install]
      WantedBy=multi-user.target
    enabled: true
    state: started
  behind-boot.service:
    content: |
      [Unit]
      After=multi-user.target
      [Service]
      Type=oneshot
      RemainAfterExit=yes
      ExecStart=/bin/cp /run/amiagent/status.json /run/%%n
    state: started
ready:
  http: {url: "http://127.0.0.1:8080/", within: 20s, every: 100ms}
`

// waiter is a unit of the image that must not start before the instance is ready.
const waiter = `
[Unit]
Requires=amiagent-ready.target
After=amiagent-ready.target
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/cp /run/amiagent/status.json /run/waiter
[Install]
WantedBy=multi-user.target
`

// newWebMachine is the image of a web server, with the manifest of all machines baked in.
func newWebMachine(c *cloud) *machine {
	c.t.Helper()
	m := newMachine(c)
	m.repository()
	m.write("/etc/amiagent/agent.yaml", agentConfig)
	m.write("/etc/amiagent/manifest.d/base.yaml", baseManifest)
	m.enable("waiter.service", waiter)
	return m
}

// repository is an apt repository in the image, with one package.
func (m *machine) repository() {
	m.Helper()
	dir := m.TempDir()
	file := func(name, text string, mode os.FileMode) {
		p := dir + "/greeter/" + name
		if err := os.MkdirAll(p[:strings.LastIndex(p, "/")], 0o755); err != nil {
			m.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), mode); err != nil {
			m.Fatal(err)
		}
	}
	file("DEBIAN/control", "Package: greeter\nVersion: 1.2-3\nArchitecture: all\nMaintainer: nobody <nobody@example.com>\nDescription: greets\n", 0o644)
	file("usr/bin/greeter", "#!/bin/sh\necho hello\n", 0o755)
	m.write("/srv/apt/.keep", "")
	command(m.T, "dpkg-deb", "--root-owner-group", "--build", dir+"/greeter", m.path("/srv/apt/greeter.deb"))
	index := exec.Command("apt-ftparchive", "packages", ".")
	index.Dir = m.path("/srv/apt")
	out, err := index.Output()
	if err != nil {
		m.Fatal(err)
	}
	m.write("/srv/apt/Packages", string(out))
	m.write("/etc/apt/sources.list", "deb [trusted=yes] file:/srv/apt ./\n")
}
