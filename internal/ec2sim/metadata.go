package ec2sim

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
)

// item is one leaf of the metadata tree.
type item struct {
	path  string // below the version, as "meta-data/ami-id"; a slash at its end makes an empty folder
	since string // the first version that has it
	value string
}

// tree is all leaves, sorted by path. Folders are what their leaves imply.
type tree []item

// at is the tree as one version shows it.
func (t tree) at(version string) tree {
	if version == "latest" {
		return t
	}
	return slices.DeleteFunc(slices.Clone(t), func(i item) bool { return i.since > version })
}

// get is a leaf's value, or a folder's listing: names separated by newlines,
// none at the end, folders with a slash. A folder is found with and without
// its slash, a leaf only without.
func (t tree) get(path string) (string, bool) {
	for _, i := range t {
		if i.path == path && !strings.HasSuffix(path, "/") {
			return i.value, true
		}
	}
	folder := path
	if folder != "" {
		folder = strings.TrimSuffix(folder, "/") + "/"
	}
	var names []string
	found := false
	for _, i := range t {
		below, ok := strings.CutPrefix(i.path, folder)
		if !ok {
			continue
		}
		found = true
		name, _, deeper := strings.Cut(below, "/")
		switch {
		case folder == "": // the top lists its three folders without a slash
		case folder == "meta-data/public-keys/":
			name += "=" + keyName // the one folder listed by number and name
		case deeper:
			name += "/"
		}
		if name != "" && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return strings.Join(names, "\n"), found
}

const keyName = "ec2sim"

// metadata builds the tree. Versions are those of AWS's table of categories.
// https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/ec2-instance-metadata.html
func (s *Sim) metadata() tree {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.cfg
	var t tree
	add := func(since, path, value string) { t = append(t, item{path, since, value}) }
	meta := func(since, path, value string) { add(since, "meta-data/"+path, value) }

	meta("1.0", "ami-id", c.ImageID)
	meta("1.0", "ami-launch-index", "0")
	meta("1.0", "ami-manifest-path", "(unknown)")
	meta("1.0", "hostname", c.Hostname)
	meta("1.0", "instance-id", c.InstanceID)
	meta("1.0", "local-ipv4", c.PrivateIP)
	meta("1.0", "reservation-id", "r-"+strings.TrimPrefix(c.InstanceID, "i-"))
	meta("1.0", "security-groups", "default")
	meta("2007-01-19", "local-hostname", c.Hostname)
	meta("2007-08-29", "instance-type", c.InstanceType)
	meta("2008-02-01", "placement/availability-zone", c.Zone)
	meta("2008-09-01", "instance-action", "none")
	meta("2011-01-01", "mac", c.MAC)
	meta("2011-01-01", "profile", "default-hvm")
	meta("2014-02-25", "services/domain", c.domain())
	meta("2015-10-20", "services/partition", c.partition())
	meta("2018-08-17", "events/maintenance/history", "[]")
	meta("2018-08-17", "events/maintenance/scheduled", "[]")
	meta("2019-10-01", "instance-life-cycle", c.LifeCycle)
	meta("2019-10-01", "placement/availability-zone-id", c.zoneID())
	meta("2020-08-24", "placement/region", c.Region)
	meta("2022-09-24", "system", "nitro")
	for name, device := range c.BlockDevices {
		meta("2007-12-15", "block-device-mapping/"+name, device)
	}
	if c.PublicKey != "" {
		meta("1.0", "public-keys/0/openssh-key", c.PublicKey)
	}
	if c.TargetState != "" {
		meta("2021-07-15", "autoscaling/target-lifecycle-state", c.TargetState)
	}
	s.network(meta)
	s.role(meta)
	if c.TagsInIMDS {
		meta("2021-03-23", "tags/instance/", "") // the folder is there without any tag
		for key, value := range c.Tags {
			if validIMDSKey(key) {
				meta("2021-03-23", "tags/instance/"+key, value)
			}
		}
	}

	document := s.identityDocument()
	add("2009-04-04", "dynamic/instance-identity/document", document)
	for name, size := range map[string]int{"signature": 128, "rsa2048": 1200, "pkcs7": 1100} {
		add("2009-04-04", "dynamic/instance-identity/"+name, throwaway(name+document, size))
	}
	if c.UserData != "" {
		add("1.0", "user-data", c.UserData)
	}
	slices.SortFunc(t, func(a, b item) int { return strings.Compare(a.path, b.path) })
	return t
}

func (s *Sim) network(meta func(since, path, value string)) {
	c := s.cfg
	id := strings.TrimPrefix(c.InstanceID, "i-")
	octets := strings.Split(c.PrivateIP, ".")
	vpc := octets[0] + ".0.0.0/16"
	if len(octets) == 4 {
		vpc = octets[0] + "." + octets[1] + ".0.0/16"
	}
	subnet := strings.Join(octets[:len(octets)-1], ".") + ".0/24"
	for name, value := range map[string]string{
		"device-number": "0", "interface-id": "eni-" + id, "local-hostname": c.Hostname, "local-ipv4s": c.PrivateIP,
		"mac": c.MAC, "owner-id": c.Account, "security-group-ids": "sg-" + id, "security-groups": "default",
		"subnet-id": "subnet-" + id, "subnet-ipv4-cidr-block": subnet,
		"vpc-id": "vpc-" + id, "vpc-ipv4-cidr-block": vpc, "vpc-ipv4-cidr-blocks": vpc,
	} {
		meta("2011-01-01", "network/interfaces/macs/"+c.MAC+"/"+name, value)
	}
}

// role adds the instance profile and its credentials.
func (s *Sim) role(meta func(since, path, value string)) {
	if s.cfg.Role == NoRole {
		return
	}
	key := s.current()
	meta("2012-01-12", "iam/info", jsonText(struct {
		Code, LastUpdated, InstanceProfileArn, InstanceProfileId string
	}{"Success", key.issued.Format(time.RFC3339),
		"arn:" + s.cfg.partition() + ":iam::" + s.cfg.Account + ":instance-profile/" + s.cfg.Role, "AIPAEC2SIMEC2SIMEC2SI"}))
	meta("2012-01-12", "iam/security-credentials/"+s.cfg.Role, jsonText(struct {
		Code, LastUpdated, Type, AccessKeyId, SecretAccessKey, Token, Expiration string
	}{"Success", key.issued.Format(time.RFC3339), "AWS-HMAC",
		key.AccessKeyID, key.SecretAccessKey, key.SessionToken, key.Expires.UTC().Format(time.RFC3339)}))
}

// identityDocument has the fields, their order and the spacing of the real one.
// https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instance-identity-documents.html
func (s *Sim) identityDocument() string {
	c := s.cfg
	text := jsonText(struct {
		AccountID               string  `json:"accountId"`
		Architecture            string  `json:"architecture"`
		AvailabilityZone        string  `json:"availabilityZone"`
		BillingProducts         *string `json:"billingProducts"`
		DevpayProductCodes      *string `json:"devpayProductCodes"`
		MarketplaceProductCodes *string `json:"marketplaceProductCodes"`
		ImageID                 string  `json:"imageId"`
		InstanceID              string  `json:"instanceId"`
		InstanceType            string  `json:"instanceType"`
		KernelID                *string `json:"kernelId"`
		PendingTime             string  `json:"pendingTime"`
		PrivateIP               string  `json:"privateIp"`
		RamdiskID               *string `json:"ramdiskId"`
		Region                  string  `json:"region"`
		Version                 string  `json:"version"`
	}{
		AccountID: c.Account, Architecture: c.Arch, AvailabilityZone: c.Zone, ImageID: c.ImageID,
		InstanceID: c.InstanceID, InstanceType: c.InstanceType, PendingTime: s.booted.Format(time.RFC3339),
		PrivateIP: c.PrivateIP, Region: c.Region, Version: "2017-09-30",
	})
	return strings.ReplaceAll(text, `": `, `" : `)
}

func jsonText(v any) string {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		panic(err) // only our own structs of strings come here
	}
	return string(b)
}

// throwaway has the shape of a signature (base64 in lines of 64) and proves
// nothing: only AWS can sign an identity document.
func throwaway(seed string, size int) string {
	var b []byte
	for len(b) < size {
		sum := sha256.Sum256(fmt.Append(b, seed))
		b = append(b, sum[:]...)
	}
	text := base64.StdEncoding.EncodeToString(b[:size])
	var lines []string
	for len(text) > 64 {
		lines, text = append(lines, text[:64]), text[64:]
	}
	return strings.Join(append(lines, text), "\n")
}

func (c Config) domain() string {
	if c.partition() == "aws-cn" {
		return "amazonaws.com.cn"
	}
	return "amazonaws.com"
}

// zoneID abbreviates a zone as AWS does: eu-west-1a is euw1-az1.
func (c Config) zoneID() string {
	parts := strings.Split(c.Region, "-")
	if len(parts) < 3 || len(c.Zone) <= len(c.Region) {
		return c.Zone
	}
	short := map[string]string{
		"north": "n", "south": "s", "east": "e", "west": "w", "central": "c", "northeast": "ne",
		"southeast": "se", "northwest": "nw", "southwest": "sw",
	}
	middle, ok := short[parts[len(parts)-2]]
	if !ok {
		return c.Zone
	}
	area := strings.Join(parts[:len(parts)-2], "")
	return fmt.Sprintf("%s%s%s-az%d", area, middle, parts[len(parts)-1], c.Zone[len(c.Zone)-1]-'a'+1)
}
