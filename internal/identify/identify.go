// Package identify is the first phase of a launch: it finds out what this
// machine is, as facts.
//
// It asks the instance metadata service and reads the OS's own files at the
// same time. Where something of the metadata is not to be had, the facts say
// why and what to do about it, with the exact call. Outside EC2 the facts are
// those of the OS and those given by hand.
package identify

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"time"

	"github.com/amiagent/amiagent/internal/diag"
	"github.com/amiagent/amiagent/internal/facts"
	"github.com/amiagent/amiagent/internal/host"
	"github.com/amiagent/amiagent/internal/imds"
)

// Options are what facts are made from.
type Options struct {
	Host *host.Host
	// IMDS reads the instance metadata; see Metadata. nil: there is none, as under a bake.
	IMDS *imds.Client
	// DescribeTags asks the EC2 API for the tags of an instance. It is called
	// only where they are not enabled in instance metadata. nil: the API is not asked.
	DescribeTags func(ctx context.Context, instance, region string) (map[string]string, error)
	// Flags are facts given by hand; they stand above all others.
	Flags map[string]string
	// Deadline bounds everything that is asked of the network; default 60 s.
	Deadline time.Duration
	// TagWait is how long a young instance waits for its first tag to show in
	// the EC2 API; default 5 s.
	TagWait time.Duration
}

// Metadata is a client for this machine's metadata service: by the standard
// settings, patient where the firmware says EC2.
func Metadata(h *host.Host, env func(string) string) (*imds.Client, error) {
	o, err := imds.FromEnv(env)
	if err != nil {
		return nil, err
	}
	fw := readFirmware(h)
	o.OnEC2, o.Instance = fw.ec2, fw.instance
	if o.Region = env("AWS_REGION"); o.Region == "" {
		o.Region = env("AWS_DEFAULT_REGION")
	}
	return imds.New(o), nil
}

// Identify finds out what this machine is. A value that is not there is no
// error, and neither is a machine outside EC2: Facts.Notes and Facts.Tags tell.
// An error means that the metadata service is there and broken, or that the
// network did not come up in time; the facts then hold what could be learnt.
// On cancel it returns at once.
func Identify(ctx context.Context, o Options) (*facts.Facts, error) {
	if o.Deadline <= 0 {
		o.Deadline = time.Minute
	}
	if o.TagWait <= 0 {
		o.TagWait = 5 * time.Second
	}
	ctx, cancel := context.WithTimeoutCause(ctx, o.Deadline, fmt.Errorf("no answer in %s", o.Deadline))
	defer cancel()
	var (
		wg  sync.WaitGroup
		own *facts.Facts
	)
	wg.Go(func() { own = readMachine(o.Host) })
	cloud, err := readMetadata(ctx, o)
	wg.Wait()

	f := facts.New()
	maps.Copy(f.Values, own.Values)
	maps.Copy(f.Values, cloud.Values)
	f.Notes = append(own.Notes, cloud.Notes...)
	f.Tags = cloud.Tags
	for name, value := range o.Flags {
		f.Set(name, value, facts.StageOf(name), "flag")
		if strings.HasPrefix(name, facts.TagPrefix) && f.Tags.State != facts.TagsPresent {
			f.Tags = facts.Tags{State: facts.TagsPresent, Source: "flag"}
		}
	}
	return f, err
}

// ParseFlags reads facts given by hand as "name=value". The value may be empty.
func ParseFlags(args []string) (map[string]string, error) {
	flags := map[string]string{}
	for _, arg := range args {
		name, value, ok := strings.Cut(arg, "=")
		if !ok || name == "" {
			return nil, fmt.Errorf("cannot use --fact %q: want name=value, as tags.Role=web", arg)
		}
		flags[name] = value
	}
	return flags, nil
}

// outside tells whether an error of the metadata service only means that this
// machine is not on EC2, or has no use of the service; note says so.
func outside(c *imds.Client, err error) (note string, ok bool) {
	const rest = "; facts are those of the OS and of --fact"
	o := c.Options()
	switch elsewhere := !o.OnEC2 && !o.Explicit; {
	case errors.Is(err, imds.ErrOff):
		return "no instance metadata: " + o.Off + rest, true
	case errors.Is(err, imds.ErrForbidden):
		return "no instance metadata: the service refuses this instance" + " (" + diag.Hint(err) + ")" + rest, true
	case elsewhere && errors.Is(err, imds.ErrNoV2):
		return "not on EC2: what answers at the address of instance metadata does not offer IMDSv2" + rest, true
	case elsewhere && (errors.Is(err, imds.ErrUnreachable) || errors.Is(err, imds.ErrNoAnswer)):
		return "not on EC2: no instance metadata service answers" + rest, true
	}
	return "", false
}
