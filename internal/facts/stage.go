package facts

import "strings"

// MachineID is /etc/machine-id, which stands in for the instance id outside EC2.
const MachineID = "machine-id"

// StageOf is the stage at which a fact of this name becomes known, wherever it
// comes from. The kernel is a launch fact: an image may boot another than the
// one it was built under.
func StageOf(name string) Stage {
	switch {
	case name == Arch, name == PackageFamily,
		strings.HasPrefix(name, "os."), strings.HasPrefix(name, "image."):
		return Bake
	}
	return Launch
}

// AtBake is what holds for every instance of an image: the facts of this
// machine that are known at bake, without its tags. The receiver stays as it is.
func (f *Facts) AtBake() *Facts {
	baked := New()
	for name, fact := range f.Values {
		if fact.Stage == Bake {
			baked.Values[name] = fact
		}
	}
	baked.Tags = Tags{State: TagsNoIMDS, Hint: "tags are known at launch only"}
	return baked
}

// Instance names the machine for stamps and reports: its instance id, or its
// machine id outside EC2, or "".
func (f *Facts) Instance() string {
	if id := f.Get(InstanceID); id != "" {
		return id
	}
	return f.Get(MachineID)
}

// Unreadable tells that the instance may have tags which could not be seen, so
// that a missing tag proves nothing.
func (t Tags) Unreadable() bool {
	switch t.State {
	case TagsDisabled, TagsDenied, TagsThrottled, TagsNotYet:
		return true
	}
	return false
}

// Doubtful tells that the instance's tags could not be read although they were
// asked for, so that taking a tag for missing, or its default for good, would be
// a guess that may differ from launch to launch.
func (t Tags) Doubtful() bool { return t.State == TagsDenied || t.State == TagsThrottled }
