package pkgmgr

import (
	"fmt"
	"strings"
	"testing"
)

func brief(all []Planned) string {
	var lines []string
	for _, p := range all {
		lines = append(lines, fmt.Sprintf("%s %s %s", p.Name, p.Version, p.Repository))
	}
	return strings.Join(lines, "\n")
}

// What apt-get 2.6 prints.
func TestWhatAptWouldBring(t *testing.T) {
	got := brief(readInst(`Reading package lists...
The following NEW packages will be installed:
  libxml2-utils
Inst libxml2-dev [2.9.14+dfsg-1.3~deb12u5] (2.9.14+dfsg-1.3~deb12u6 Debian:12.15/oldstable [amd64]) []
Inst libxml2:i386 (2.9.14+dfsg-1.3~deb12u6 Debian:12.15/oldstable, Debian-Security:12/oldstable-security [i386])
Inst local (0:1.0)
Remv old [1.0]
Conf libxml2-dev (2.9.14+dfsg-1.3~deb12u6 Debian:12.15/oldstable [amd64])
`))
	want := "libxml2-dev 2.9.14+dfsg-1.3~deb12u6 Debian:12.15/oldstable\nlibxml2 2.9.14+dfsg-1.3~deb12u6 Debian:12.15/oldstable\nlocal 1.0 "
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// What dnf 4.14 and yum 3.4 print, and dnf 5.2 with its sizes in KiB.
func TestWhatDnfWouldBring(t *testing.T) {
	got := brief(readTable(`Last metadata expiration check: 0:00:01 ago on Mon Nov 24 12:00:00 2025.
Dependencies resolved.
================================================================================
 Package                Arch       Version                 Repository      Size
================================================================================
Installing:
 nginx                  x86_64     1:1.28.0-1.amzn2023     amazonlinux     33 k
Upgrading:
 openssl-libs           x86_64     1:3.2.2-1.amzn2023      amazonlinux    2.1 M
Installing dependencies:
 a-package-with-a-name-that-is-rather-long
                        noarch     0:2.0-1                 amazonlinux    500  
Installing weak dependencies:
 nginx-mimetypes        noarch     2.1.49-3                amazonlinux     21 KiB
Removing:
 curl-minimal           x86_64     8.5.0-1                 @System        200 k
Removing dependent packages:
 old                    x86_64     1-1                     @System        200 k

Transaction Summary
================================================================================
Install  3 Packages

Total download size: 2.2 M
Operation aborted.
`))
	want := "nginx 1:1.28.0-1.amzn2023 amazonlinux\nopenssl-libs 1:3.2.2-1.amzn2023 amazonlinux\n" +
		"a-package-with-a-name-that-is-rather-long 2.0-1 amazonlinux\nnginx-mimetypes 2.1.49-3 amazonlinux"
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if got := readTable("Error: Unable to find a match: nginx\n"); got != nil {
		t.Errorf("an error brings %v", got)
	}
}
