package identify

import (
	"context"
	"errors"
	"net/url"
	"strings"
	"sync"

	"github.com/amiagent/amiagent/internal/facts"
	"github.com/amiagent/amiagent/internal/imds"
)

const source = "imds"

// lanes is how many reads are under way at once. The client has two
// connections; a few more reads keep them busy without using up their
// timeouts in a queue.
const lanes = 4

// survey reads many values of the metadata service at once.
type survey struct {
	ctx   context.Context
	stop  context.CancelCauseFunc
	imds  *imds.Client
	lane  chan struct{}
	wg    sync.WaitGroup
	mu    sync.Mutex
	facts *facts.Facts
}

// readMetadata learns what the metadata service tells, and the tags from
// wherever they are to be had.
func readMetadata(ctx context.Context, o Options) (*facts.Facts, error) {
	f := facts.New()
	f.Tags.State = facts.TagsNoIMDS
	if o.IMDS == nil {
		return f, nil
	}
	doc, err := o.IMDS.Document(ctx)
	if err != nil {
		note, ok := outside(o.IMDS, err)
		if !ok {
			return f, err
		}
		f.Notes = append(f.Notes, note)
		if errors.Is(err, imds.ErrForbidden) {
			f.Tags.Hint = "enable instance metadata, and tags in it: " + imds.Remedy(o.IMDS.Options().Instance, o.IMDS.Options().Region,
				"--http-endpoint enabled --http-tokens required --instance-metadata-tags enabled")
		}
		return f, nil
	}
	s := &survey{imds: o.IMDS, lane: make(chan struct{}, lanes), facts: f}
	s.ctx, s.stop = context.WithCancelCause(ctx)
	defer s.stop(nil)
	s.document(doc)
	s.value(facts.Hostname, "meta-data/hostname")
	s.value(facts.LifeCycle, "meta-data/instance-life-cycle")
	// 404 is normal before the first transition.
	s.value(facts.TargetState, "meta-data/autoscaling/target-lifecycle-state")
	s.value("network.public-ipv4", "meta-data/public-ipv4")
	s.value("network.ipv6", "meta-data/ipv6")
	s.do(s.network)
	s.do(s.blockDevices)
	s.do(func() error { return s.tags(doc, o) })
	s.wg.Wait()
	return f, context.Cause(s.ctx)
}

// do runs one strand of reads. The first error ends all.
func (s *survey) do(strand func() error) {
	s.wg.Go(func() {
		if err := strand(); err != nil {
			s.stop(err)
		}
	})
}

func (s *survey) set(name, value string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.facts.Set(name, value, facts.StageOf(name), source)
}

// get reads one value; ok is false when it is not there.
func (s *survey) get(path string) (value string, ok bool, err error) {
	s.lane <- struct{}{}
	defer func() { <-s.lane }()
	b, err := s.imds.Get(s.ctx, path)
	if errors.Is(err, imds.ErrAbsent) {
		return "", false, nil
	}
	return strings.TrimRight(string(b), "\r\n"), err == nil, err
}

func (s *survey) list(path string) ([]string, error) {
	text, _, err := s.get(path)
	return strings.FieldsFunc(text, func(r rune) bool { return r == '\n' || r == '\r' }), err
}

// value makes a fact of one value, where it is there.
func (s *survey) value(name, path string) {
	s.do(func() error {
		v, ok, err := s.get(path)
		if ok {
			s.set(name, v)
		}
		return err
	})
}

func (s *survey) document(doc imds.Document) {
	for name, value := range map[string]string{
		facts.InstanceID: doc.InstanceID, facts.InstanceType: doc.InstanceType, facts.Region: doc.Region, facts.Zone: doc.Zone,
		facts.Account: doc.Account, facts.ImageID: doc.ImageID, "network.local-ipv4": doc.PrivateIP, "pending-time": doc.Pending,
	} {
		if value != "" {
			s.set(name, value)
		}
	}
}

// network reads what the primary interface belongs to.
func (s *survey) network() error {
	mac, ok, err := s.get("meta-data/mac")
	if !ok {
		return err
	}
	s.set("network.mac", mac)
	for _, name := range []string{"vpc-id", "subnet-id"} {
		s.value("network."+name, "meta-data/network/interfaces/macs/"+url.PathEscape(mac)+"/"+name)
	}
	return nil
}

// blockDevices reads the mapping, as far as it goes: NVMe instance store
// volumes are not in it. The root is on instance store exactly when the image
// has a manifest in S3.
// https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instancedata-data-categories.html
func (s *survey) blockDevices() error {
	s.do(func() error {
		path, ok, err := s.get("meta-data/ami-manifest-path")
		switch {
		case !ok:
		case path == "" || path == "(unknown)":
			s.set("block.root", "ebs")
		default:
			s.set("block.root", "instance-store")
		}
		return err
	})
	names, err := s.list("meta-data/block-device-mapping")
	for _, name := range names {
		fact := "block." + name
		switch name {
		case "ami": // the same as root, without /dev
			continue
		case "root":
			fact = "block.root-device"
		}
		s.do(func() error {
			device, ok, err := s.get("meta-data/block-device-mapping/" + url.PathEscape(name))
			if ok {
				s.set(fact, "/dev/"+strings.TrimPrefix(device, "/dev/"))
			}
			return err
		})
	}
	return err
}
