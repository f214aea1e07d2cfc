package users

import (
	"encoding/base64"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/amiagent/amiagent/internal/diag"
	"github.com/amiagent/amiagent/internal/step"
)

// nameRule is what the shadow-utils of some supported distribution accepts;
// stricter ones refuse for themselves. A name of digits alone would be read as
// a number, and ":" or "," would break the files.
var nameRule = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.-]{0,31}$`)

// groupRule is a name or a number.
var groupRule = regexp.MustCompile(`^([A-Za-z_][A-Za-z0-9_.-]{0,31}|[0-9]{1,10})$`)

// maxID is the largest number. The kernel takes twice as many; programs, this
// one on 386 among them, read those as negative.
const maxID = 1<<31 - 1

// Validate records faults of the body by field name.
func (u *User) Validate(at diag.At) {
	if step.StaticText(u.name) && !nameRule.MatchString(u.name) {
		at.Errorf("%q cannot name a user: use a letter, then letters, digits, '_', '.' or '-', at most 32", u.name)
	}
	if u.Absent {
		u.validateAbsent(at)
		return
	}
	if u.UID != nil && (*u.UID < 0 || *u.UID > maxID) {
		at.Field("uid").Errorf("must be between 0 and %d, is %d", maxID, *u.UID)
	}
	if u.name == "root" && u.UID != nil && *u.UID != 0 {
		at.Field("uid").Errorf("root has uid 0, is %d", *u.UID)
	}
	if u.Group != "" && step.StaticText(u.Group) && !groupRule.MatchString(u.Group) {
		at.Field("group").Errorf("%q cannot name a group", u.Group)
	}
	for i, g := range u.Groups {
		if step.StaticText(g) && !groupRule.MatchString(g) {
			at.Field("groups").Index(i).Errorf("%q cannot name a group", g)
		}
	}
	for _, p := range []struct{ field, value string }{{"home", u.Home}, {"shell", u.Shell}} {
		if p.value == "" || !step.StaticText(p.value) {
			continue
		}
		if !path.IsAbs(p.value) || path.Clean(p.value) != p.value || strings.ContainsAny(p.value, ":\n") {
			at.Field(p.field).Errorf("must be a plain absolute path, is %q", p.value)
		}
	}
	if strings.ContainsAny(u.Comment, ":\n") && step.StaticText(u.Comment) {
		at.Field("comment").Errorf("must be one line without ':', which ends a field of /etc/passwd")
	}
	for i, k := range u.SSHKeys {
		if step.StaticText(k) && !publicKey(k) {
			at.Field("ssh-authorized-keys").Index(i).Errorf("is not one line of authorized_keys: [options] type base64 [comment]")
		}
	}
}

func (u *User) validateAbsent(at diag.At) {
	at = at.Field("absent")
	if u.name == "root" {
		at.Errorf("the user root cannot be removed")
	}
	if u.UID != nil || u.Group != "" || u.Groups != nil || u.System || u.Home != "" || u.CreateHome != nil ||
		u.Shell != "" || u.Comment != "" || u.SSHKeys != nil || u.Locked {
		at.Errorf("an absent user has no other field")
	}
}

// keyTypes are those of sshd(8), AUTHORIZED_KEYS FILE FORMAT. A certificate
// is no entry of that file; its authority's key is, with the option cert-authority.
var keyTypes = []string{
	"ssh-ed25519", "ssh-rsa", "ssh-dss",
	"ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521",
	"sk-ssh-ed25519@openssh.com", "sk-ecdsa-sha2-nistp256@openssh.com",
}

// publicKey tells whether a line holds a key type followed by base64. It
// catches a private key, a file name or a fingerprint given for a key; sshd judges the rest.
func publicKey(line string) bool {
	line = strings.TrimSpace(line)
	if strings.ContainsAny(line, "\r\n") {
		return false
	}
	words := strings.Fields(line)
	for i := 0; i+1 < len(words); i++ {
		if slices.Contains(keyTypes, words[i]) {
			b, err := base64.StdEncoding.DecodeString(words[i+1])
			return err == nil && len(b) > 0
		}
	}
	return false
}
