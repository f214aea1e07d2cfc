package mounts

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/amiagent/amiagent/internal/diag"
	"github.com/amiagent/amiagent/internal/step"
	"github.com/amiagent/amiagent/internal/step/steptest"
)

// In a tree, units are written and enabled, and nothing is mounted. Mounting is
// tested in a booted system, see booted_test.go.
func TestMountsOfATree(t *testing.T) {
	const dirs = "/etc/ 0755\n/etc/systemd/ 0755\n/etc/systemd/system/ 0755\n"
	steptest.Run(t, Kind(), []steptest.Case{
		{
			Name: "a labelled volume", Entry: "/var/lib/my app", Body: "device: \"LABEL=my data\"\nfs: ext4\noptions: [noatime, commit=30]\n",
			Drift: `/etc/systemd/system/var-lib-my\x20app.mount is missing`,
			Breaks: []steptest.Break{
				{Name: "edited", Do: func(m *steptest.Machine) {
					m.Write(`/etc/systemd/system/var-lib-my\x20app.mount`, 0o644, "[Mount]\n")
				}, Drift: "differs"},
				{Name: "disabled", Do: func(m *steptest.Machine) {
					m.Remove(`/etc/systemd/system/local-fs.target.wants/var-lib-my\x20app.mount`)
				}, Drift: "is disabled, want enabled"},
			},
		},
		{
			Name: "a volume by id", Entry: "/data", Body: "ebs: vol-0123456789abcdef0\nfs: xfs\nlabel: data\nowner: app\n",
			Want: "/data/ 0755\n" + dirs + `/etc/systemd/system/data.mount 0644 sha256:` + sum("# Written by amiagent, and written again when it differs.\n"+
				"[Unit]\nDescription=EBS volume vol-0123456789abcdef0 on /data\n"+
				"[Mount]\nWhat=/dev/disk/by-id/nvme-Amazon_Elastic_Block_Store_vol0123456789abcdef0\nWhere=/data\nType=xfs\n"+
				"[Install]\nWantedBy=local-fs.target\n") +
				"\n/etc/systemd/system/local-fs.target.wants/ 0755\n/etc/systemd/system/local-fs.target.wants/data.mount -> /etc/systemd/system/data.mount",
		},
		{
			Name: "an image", Entry: "/opt/model", Body: "device: /var/lib/100%.squashfs\nfs: squashfs\n",
			Want: dirs + `/etc/systemd/system/local-fs.target.wants/ 0755
				/etc/systemd/system/local-fs.target.wants/opt-model.mount -> /etc/systemd/system/opt-model.mount
				/etc/systemd/system/opt-model.mount 0644 sha256:` + sum("# Written by amiagent, and written again when it differs.\n"+
				"[Unit]\nDescription=image /var/lib/100%%.squashfs on /opt/model\n"+
				"[Mount]\nWhat=/var/lib/100%%.squashfs\nWhere=/opt/model\nType=squashfs\nOptions=ro,loop\n"+
				"[Install]\nWantedBy=local-fs.target\n") +
				"\n/opt/ 0755\n/opt/model/ 0755",
		},
		{Name: "only the running machine knows its instance store", Entry: "/scratch", Body: "ephemeral: 0\nfs: ext4\n", None: true},
		{Name: "and where a device name leads", Entry: "/data", Body: "ebs: /dev/xvdf\nfs: ext4\n", None: true},
		{
			Name: "a file is in the way", Entry: "/data", Body: "device: /dev/sdf\nfs: ext4\n",
			Setup: func(t *testing.T, m *steptest.Machine) { m.Write("/data", 0o644, "") },
			Error: "cannot mount /data: mkdir /data: not a directory",
		},
	})
}

func TestFaults(t *testing.T) {
	steptest.Faults(t, Kind(), []steptest.Fault{
		{Name: "none", Entry: "/data", Body: "ebs: sdf\nfs: xfs"},
		{Name: "nothing to mount", Entry: "/data", Body: "fs: xfs", Want: "manifest.yaml:1:1: mounts./data: needs one of device, ephemeral and ebs, has 0"},
		{Name: "too much to mount", Entry: "/data", Body: "fs: xfs\nebs: sdf\nephemeral: 0", Want: "manifest.yaml:1:1: mounts./data: needs one of device, ephemeral and ebs, has 2"},
		{Name: "places", Entry: "data/", Body: "fs: xfs\nebs: sdf", Want: `manifest.yaml:1:1: mounts.data/: "data/" is no mount point: write a clean absolute path, as /data`},
		{Name: "the root", Entry: "/", Body: "fs: xfs\nebs: sdf", Want: "manifest.yaml:1:1: mounts./: / belongs to the system, nothing can be mounted there"},
		{Name: "the kernel's", Entry: "/proc/x", Body: "fs: xfs\nebs: sdf", Want: "manifest.yaml:1:1: mounts./proc/x: /proc/x belongs to the system, nothing can be mounted there"},
		{Name: "devices", Entry: "/data", Body: "fs: ext4\ndevice: sdf", Want: `manifest.yaml:2:9: mounts./data.device: must be a path or LABEL=, UUID=, PARTLABEL=, PARTUUID=, is "sdf"`},
		{Name: "an unknown tag", Entry: "/data", Body: "fs: ext4\ndevice: NAME=x", Want: `manifest.yaml:2:9: mounts./data.device: must be a path or LABEL=, UUID=, PARTLABEL=, PARTUUID=, is "NAME=x"`},
		{Name: "a writable image", Entry: "/data", Body: "fs: ext4\ndevice: /var/disk.img", Want: "manifest.yaml:2:9: mounts./data.device: /var/disk.img is no device: only images of squashfs and erofs are mounted from files"},
		{Name: "ebs", Entry: "/data", Body: "fs: ext4\nebs: nvme1n1", Want: `manifest.yaml:2:6: mounts./data.ebs: must be a device name of EC2, as sdf, or a volume, as vol-0123456789abcdef0, is "nvme1n1"`},
		{Name: "ephemeral", Entry: "/data", Body: "fs: ext4\nephemeral: -1", Want: "manifest.yaml:2:12: mounts./data.ephemeral: counts from 0, is -1"},
		{Name: "file systems", Entry: "/data", Body: "fs: btrfs\nebs: sdf", Want: `manifest.yaml:1:5: mounts./data.fs: must be ext4, xfs, squashfs or erofs, is "btrfs"`},
		{Name: "no file system", Entry: "/data", Body: "ebs: sdf", Want: "manifest.yaml:1:1: mounts./data.fs: must be given: ext4, xfs, squashfs or erofs"},
		{Name: "the rest", Entry: "/data", Body: "fs: xfs\nebs: sdf\nlabel: a-label-too-long\nformat: always\nmode: \"999\"\noptions: [\"a b \"]\nwait: -1s\n", Want: `
			manifest.yaml:3:8: mounts./data.label: "a-label-too-long" is longer than the 12 bytes that xfs has for it
			manifest.yaml:4:9: mounts./data.format: must be if-blank or never, is "always"
			manifest.yaml:5:7: mounts./data.mode: must be octal, as "0750", is "999"
			manifest.yaml:6:11: mounts./data.options[0]: "a b " is no option of mount
			manifest.yaml:7:7: mounts./data.wait: must not be negative, is -1s`},
		{Name: "read-only", Entry: "/m", Body: "device: /a.erofs\nfs: erofs\nformat: if-blank\nowner: app\nlabel: x\n", Want: `
			manifest.yaml:3:9: mounts./m.format: erofs is read-only, and is what it was made to be
			manifest.yaml:4:8: mounts./m.owner: erofs is read-only, and is what it was made to be
			manifest.yaml:5:8: mounts./m.label: erofs is read-only, and is what it was made to be`},
		{Name: "templates are judged when they are rendered", Entry: "/m", Body: "device: \"{{ .Vars.d }}\"\nfs: \"{{ .Vars.fs }}\"\nmode: \"{{ .Vars.m }}\"\n"},
	})
}

func TestUnitNames(t *testing.T) {
	// As systemd-escape(1) gives them; compared with it in system_test.go.
	for p, want := range map[string]string{
		"/data": "data", "/": "-", "/var/lib/app": "var-lib-app", "/srv/a-b": `srv-a\x2db`, "/.hidden/x": `\x2ehidden-x`,
		"/x/.y": "x-.y", "/a b": `a\x20b`, "/ü": `\xc3\xbc`, `/a\b`: `a\x5cb`, "/a_b:c.d": "a_b:c.d", "/a@b%": `a\x40b\x25`,
	} {
		if got := escapePath(p); got != want {
			t.Errorf("%s becomes %s, want %s", p, got, want)
		}
	}
}

func TestTagsAsUdevWritesThem(t *testing.T) {
	for tag, want := range map[string]string{"data": "data", "my data": `my\x20data`, "a/b": `a\x2fb`, "größe": "größe", `a\b`: `a\x5cb`, "#+-.:=@_": "#+-.:=@_"} {
		if got := encodeTag(tag); got != want {
			t.Errorf("%s becomes %s, want %s", tag, got, want)
		}
	}
}

func TestMountinfo(t *testing.T) {
	all := parseMountinfo(`22 1 259:1 / / rw,relatime shared:1 - ext4 /dev/root rw
36 35 98:0 /mnt1 /mnt\0402 rw,noatime master:1 - ext3 /dev/my\134disk rw,errors=continue
40 22 0:35 / /run rw - tmpfs tmpfs rw,size=1g
nonsense
41 22 7:0 / /x rw
`)
	want := []mounted{
		{"259:1", "/", "/", "ext4", "/dev/root"},
		{"98:0", "/mnt1", "/mnt 2", "ext3", `/dev/my\disk`},
		{"0:35", "/", "/run", "tmpfs", "tmpfs"},
	}
	if len(all) != len(want) {
		t.Fatalf("%v", all)
	}
	for i := range want {
		if all[i] != want[i] {
			t.Errorf("%v, want %v", all[i], want[i])
		}
	}
}

func FuzzMountinfo(f *testing.F) {
	f.Add("36 35 98:0 /mnt1 /mnt\\0402 rw,noatime master:1 - ext3 /dev/root rw\n")
	f.Add("\\ - \\4 a b c d e f - ")
	f.Fuzz(func(t *testing.T, text string) { parseMountinfo(text) })
}

// disks makes the names that udev makes on a Nitro instance.
func disks(t *testing.T, m *steptest.Machine, names map[string]string) {
	t.Helper()
	m.Mkdir(byID, 0)
	for name, device := range names {
		m.Write("/dev/"+device, 0o600, "")
		if err := os.Symlink("../../"+device, m.Path(byID+"/"+name)); err != nil {
			t.Fatal(err)
		}
	}
}

func TestStableNames(t *testing.T) {
	m := steptest.NewMachine(t, steptest.Options{})
	disks(t, m, map[string]string{
		"nvme-Amazon_Elastic_Block_Store_vol0aaa":            "nvme0n1",
		"nvme-Amazon_Elastic_Block_Store_vol0aaa_1":          "nvme0n1",
		"nvme-Amazon_Elastic_Block_Store_vol0aaa-part1":      "nvme0n1p1",
		"nvme-Amazon_Elastic_Block_Store_vol0bbb":            "nvme2n1",
		"nvme-Amazon_EC2_NVMe_Instance_Storage_AWS2222":      "nvme1n1",
		"nvme-Amazon_EC2_NVMe_Instance_Storage_AWS2222-ns-1": "nvme1n1",
		"nvme-Amazon_EC2_NVMe_Instance_Storage_AWS1111":      "nvme3n1",
		"nvme-Amazon_EC2_NVMe_Instance_Storage_AWS1111_1":    "nvme3n1",
	})
	if err := os.Symlink("nvme2n1", m.Path("/dev/sdf")); err != nil {
		t.Fatal(err)
	}
	m.Write("/dev/xvdg", 0o600, "")
	n := func(i int) *int { return &i }
	for want, mount := range map[string]Mount{
		byID + "/nvme-Amazon_EC2_NVMe_Instance_Storage_AWS1111":       {Ephemeral: n(0)},
		byID + "/nvme-Amazon_EC2_NVMe_Instance_Storage_AWS2222":       {Ephemeral: n(1)},
		byID + "/nvme-Amazon_Elastic_Block_Store_vol0bbb":             {EBS: "/dev/xvdf"}, // by the link of Amazon Linux
		byID + "/nvme-Amazon_Elastic_Block_Store_vol0123456789abcdef": {EBS: "vol-0123456789abcdef"},
		"/dev/xvdg":                    {EBS: "sdg"}, // a Xen instance has no other name
		"/dev/disk/by-label/my\\x20d":  {Device: "LABEL=my d"},
		"/dev/disk/by-partuuid/0a-01":  {Device: "PARTUUID=0a-01"},
		"/dev/disk/by-path/pci-0000:1": {Device: "/dev/disk/by-path/pci-0000:1"},
	} {
		if got, err := mount.what(m.Host); got != want || err != nil {
			t.Errorf("%s is %s, %v, want %s", mount.volume(), got, err, want)
		}
	}
	for _, mount := range []Mount{{Ephemeral: n(2)}, {EBS: "sdz"}} {
		if got, err := mount.what(m.Host); !errors.Is(err, errNotThere) {
			t.Errorf("%s is %s, %v, want none", mount.volume(), got, err)
		}
	}
}

func TestIdentifyAnswer(t *testing.T) {
	answer := func(vendor uint16, model, name string) []byte {
		b := make([]byte, identifySize)
		binary.LittleEndian.PutUint16(b, vendor)
		copy(b[modelAt:], model+strings.Repeat(" ", modelEnd-modelAt-len(model)))
		copy(b[vendorPart:], name)
		return b
	}
	for want, b := range map[string][]byte{
		"sdf":       answer(amazonVendor, ebsModel, "sdf"+strings.Repeat(" ", 29)),
		"/dev/xvdf": answer(amazonVendor, ebsModel, "/dev/xvdf\x00\x01\x02"),
		"":          answer(amazonVendor, "Amazon EC2 NVMe Instance Storage", "ephemeral0:sdb"),
	} {
		if got := identifyName(b); got != want {
			t.Errorf("the name is %q, want %q", got, want)
		}
	}
	if got := identifyName(answer(0x144d, ebsModel, "sdf")); got != "" {
		t.Errorf("another maker's device has the name %q", got)
	}
	if got := identifyName([]byte("short")); got != "" {
		t.Error(got)
	}
}

func TestBlkidAnswers(t *testing.T) {
	for _, c := range []struct {
		code int
		out  string
		want holds
		err  string
	}{
		{2, "", holds{}, ""},
		{0, "DEVNAME=/dev/x\nUUID=1\nTYPE=ext4\nUSAGE=filesystem\n", holds{fs: "ext4"}, ""},
		{0, "TYPE=crypto_LUKS\nUSAGE=crypto\n", holds{other: "a crypto_LUKS signature"}, ""},
		{0, "TYPE=LVM2_member\nUSAGE=raid\n", holds{other: "a LVM2_member signature"}, ""},
		{0, "PTUUID=1\nPTTYPE=gpt\n", holds{other: "a partition table (gpt)"}, ""},
		{0, "", holds{}, "blkid found something and does not say what"},
		{8, "", holds{}, "it holds the signatures of several file systems"},
		{4, "", holds{}, "blkid exited with 4"},
		{-1, "", holds{}, "blkid exited with -1"},
	} {
		got, err := judge(c.code, c.out)
		if got != c.want || (err == nil) != (c.err == "") || err != nil && err.Error() != c.err {
			t.Errorf("%d %q: %v, %v, want %v, %q", c.code, c.out, got, err, c.want, c.err)
		}
	}
}

// A device, what blkid says of it, and what becomes of it. The programs are
// fakes that log how they were called; the real ones run in a booted system.
func TestFormatOnlyWhatIsBlank(t *testing.T) {
	zeros := strings.Repeat("\x00", 4096)
	halfXFS := "XFSB" + strings.Repeat("\x00", 122) + "\x01" + zeros
	ext4, xfs := `echo TYPE=ext4`, `echo TYPE=xfs`
	const device = "/dev/disk/by-id/vol"
	for name, c := range map[string]struct {
		holds, blkid string
		mount        Mount
		begun        string // device that an earlier Apply began to format
		mkfs         string // as logged
		err, hint    string
		mkfsFails    bool
	}{
		"blank":                       {holds: zeros, blkid: "exit 2", mount: Mount{FS: "ext4"}, mkfs: "mkfs.ext4 -q -F -E nodiscard " + device},
		"blank, labelled":             {holds: zeros, blkid: "exit 2", mount: Mount{FS: "xfs", Label: "d"}, mkfs: "mkfs.xfs -q -K -L d " + device},
		"blank, never formatted":      {holds: zeros, blkid: "exit 2", mount: Mount{FS: "ext4", Format: never}, err: "cannot mount /data: /dev/vol is blank, and `format: never` leaves it so"},
		"its file system":             {holds: "x", blkid: ext4, mount: Mount{FS: "ext4"}},
		"another file system":         {holds: "x", blkid: xfs, mount: Mount{FS: "ext4"}, err: "cannot mount /data: /dev/vol holds xfs, want ext4", hint: "nothing that holds a file system is formatted"},
		"a partition table":           {holds: "x", blkid: "echo PTTYPE=dos", mount: Mount{FS: "ext4"}, err: "cannot mount /data: /dev/vol holds a partition table (dos)", hint: "one of its partitions"},
		"data without a signature":    {holds: zeros + "oracle", blkid: "exit 2", mount: Mount{FS: "ext4"}, err: "cannot mount /data: /dev/vol holds data that is no file system known to blkid", hint: "blkdiscard"},
		"contradictions":              {holds: "x", blkid: "exit 8", mount: Mount{FS: "ext4"}, err: "cannot tell what /dev/vol holds: it holds the signatures of several file systems", hint: "wipefs"},
		"blkid is out of its mind":    {holds: zeros, blkid: "kill -9 $$", mount: Mount{FS: "ext4"}, err: "cannot tell what /dev/vol holds: blkid exited with -1"},
		"unreadable":                  {holds: "-", blkid: "exit 2", mount: Mount{FS: "ext4"}, err: "cannot read /dev/vol"},
		"half an ext4 of ours":        {holds: zeros + "groups", blkid: "exit 2", begun: device, mount: Mount{FS: "ext4"}, mkfs: "mkfs.ext4 -q -F -E nodiscard " + device},
		"half an ext4 of another":     {holds: zeros + "groups", blkid: "exit 2", begun: "/dev/other", mount: Mount{FS: "ext4"}, err: "holds data"},
		"half an xfs of ours":         {holds: halfXFS, blkid: xfs, begun: device, mount: Mount{FS: "xfs"}, mkfs: "mkfs.xfs -q -K -f " + device},
		"half an xfs of another":      {holds: halfXFS, blkid: xfs, mount: Mount{FS: "xfs"}, err: "holds a xfs whose making was cut off, and not by this agent", hint: "wipefs -a"},
		"whole, the mark is left":     {holds: "x", blkid: ext4, begun: device, mount: Mount{FS: "ext4"}},
		"since then another's":        {holds: "x", blkid: xfs, begun: device, mount: Mount{FS: "ext4"}, err: "holds xfs, want ext4"},
		"since then partitioned":      {holds: "x", blkid: "echo PTTYPE=gpt", begun: device, mount: Mount{FS: "ext4"}, err: "a partition table (gpt)"},
		"the program fails":           {holds: zeros, blkid: "exit 2", mount: Mount{FS: "ext4"}, mkfsFails: true, mkfs: "mkfs.ext4 -q -F -E nodiscard " + device, err: "cannot make ext4 on /dev/vol: mkfs.ext4 exited with 1: /dev/vol is apparently in use"},
		"an image is never formatted": {holds: zeros, blkid: "exit 2", mount: Mount{FS: "squashfs", Device: "/img"}},
	} {
		t.Run(name, func(t *testing.T) {
			mkfs := "true"
			if c.mkfsFails {
				mkfs = "echo /dev/vol is apparently in use; exit 1"
			}
			m := steptest.NewMachine(t, steptest.Options{Live: true, Programs: map[string]string{"blkid": c.blkid, "mkfs.ext4": mkfs, "mkfs.xfs": mkfs}})
			if c.holds != "-" {
				m.Write(device, 0o600, c.holds)
			}
			env := m.Env(step.ID{Kind: "mounts", Name: "/data"}, "key")
			begun := step.ID{Kind: "mounts", Name: "/data formatting"}
			if c.begun != "" {
				if err := m.Stamps.Put(begun, c.begun); err != nil {
					t.Fatal(err)
				}
			}
			mount := c.mount
			mount.SetName("/data")
			if mount.Device == "" {
				mount.Device = "/dev/vol"
			}
			err := mount.prepare(t.Context(), env, device)
			if (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) || !strings.Contains(diag.Hint(err), c.hint) {
				t.Errorf("error is %v (hint %q), want %q (%q)", err, diag.Hint(err), c.err, c.hint)
			}
			var made []string
			for _, line := range m.Log() {
				if strings.HasPrefix(line, "mkfs") {
					made = append(made, line)
				}
			}
			if got := strings.Join(made, "\n"); got != c.mkfs {
				t.Errorf("made by %q, want %q", got, c.mkfs)
			}
			if left := m.Stamps.Has(begun, device); left != (c.mkfsFails || c.err != "" && c.begun == device) {
				t.Errorf("the mark of a begun format is there: %v", left)
			}
		})
	}
}

// What a running machine's own account of its mounts means for the step.
func TestCheckByMountinfo(t *testing.T) {
	const line = "36 22 0:0 / /data rw - ext4 /dev/vol rw\n" // a file's device number is 0:0
	for name, c := range map[string]struct {
		info, mode string
		want       step.Drift
	}{
		"mounted":           {info: line},
		"not mounted":       {info: "22 1 259:1 / / rw - ext4 /dev/root rw\n", want: "is not mounted"},
		"another device":    {info: strings.Replace(line, "0:0", "259:3", 1), want: "/dev/vol is mounted there, want /dev/vol"},
		"another type":      {info: strings.Replace(line, "ext4", "ext3", 1), want: "is ext3, want ext4"},
		"hidden by another": {info: line + "40 36 0:33 / /data rw - tmpfs tmpfs rw\n", want: "tmpfs is mounted there, want /dev/vol"},
		"its mode":          {info: line, mode: "0700", want: "mode is 0755, want 0700"},
	} {
		t.Run(name, func(t *testing.T) {
			m := steptest.NewMachine(t, steptest.Options{Live: true})
			m.Write("/proc/self/mountinfo", 0o444, c.info)
			m.Write("/dev/vol", 0o600, "")
			m.Mkdir("/data", 0o755)
			mount := &Mount{Device: "/dev/vol", FS: "ext4", Mode: c.mode}
			mount.SetName("/data")
			if err := mount.writeUnit(t.Context(), m.Host, "/dev/vol"); err != nil {
				t.Fatal(err)
			}
			got, err := mount.Check(t.Context(), m.Env(step.ID{Kind: "mounts", Name: "/data"}, "key"))
			if got != c.want || err != nil {
				t.Errorf("Check finds %q, %v, want %q", got, err, c.want)
			}
		})
	}
}

func TestDeviceThatDoesNotCome(t *testing.T) {
	m := steptest.NewMachine(t, steptest.Options{Live: true})
	for want, mount := range map[string]*Mount{
		"cannot mount /data: instance-store volume 0 did not appear within 1ms": {Ephemeral: new(int), FS: "ext4", Wait: 1e6},
		"cannot mount /data: LABEL=x did not appear within 1ms":                 {Device: "LABEL=x", FS: "ext4", Wait: 1e6},
		"cannot mount /data: image /x.img did not appear within 1ms":            {Device: "/x.img", FS: "erofs", Wait: 1e6},
	} {
		mount.SetName("/data")
		if d, err := mount.Check(t.Context(), m.Env(step.ID{Kind: "mounts", Name: "/data"}, "")); d == "" || err != nil {
			t.Errorf("Check finds %q, %v", d, err)
		}
		err := mount.Apply(t.Context(), m.Env(step.ID{Kind: "mounts", Name: "/data"}, ""))
		if err == nil || err.Error() != want || diag.Hint(err) == "" {
			t.Errorf("error is %v (hint %q), want %q", err, diag.Hint(err), want)
		}
	}
}

func TestDeviceThatComesLate(t *testing.T) {
	m := steptest.NewMachine(t, steptest.Options{Live: true})
	mount := &Mount{Device: "/dev/late", FS: "ext4", Wait: 30e9}
	var told []string
	env := m.Env(step.ID{Kind: "mounts", Name: "/data"}, "")
	env.Status = func(s string) {
		told = append(told, s)
		m.Write("/dev/late", 0o600, "")
	}
	if what, err := mount.await(t.Context(), env); what != "/dev/late" || err != nil {
		t.Error(what, err)
	}
	if len(told) != 1 || told[0] != "waiting for /dev/late" {
		t.Errorf("told %q", told)
	}
}

func TestNeedsItsOwner(t *testing.T) {
	ids := (&Mount{Owner: "app", Group: "ops"}).Needs()
	if len(ids) != 2 || ids[0].String() != "users.app" || ids[1].String() != "groups.ops" {
		t.Error(ids)
	}
}

func TestModes(t *testing.T) {
	for _, text := range []string{"0750", "4755", "1777", "2770", "0000", "7777"} {
		mode, err := parseMode(text)
		if got := octal(mode); got != text || err != nil {
			t.Errorf("%s becomes %s, %v", text, got, err)
		}
	}
}

func TestXFSInProgress(t *testing.T) {
	start := append([]byte("XFSB"), bytes.Repeat([]byte{0}, 200)...)
	if xfsInProgress(start) || xfsInProgress([]byte("XFSB")) {
		t.Error("a whole superblock, or a short one, counts as half")
	}
	start[126] = 1
	if !xfsInProgress(start) {
		t.Error("half a superblock counts as whole")
	}
}

// sum is how Tree tells of a content that is too long to quote.
func sum(text string) string { return fmt.Sprintf("%x", sha256.Sum256([]byte(text))) }
