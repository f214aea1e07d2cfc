#!/bin/sh
# Installs the Debian packages that `make test-system` uses, all of them listed
# here and nowhere else. Nothing is done when all are there.
set -eu

packages="
apt-utils
build-essential
ca-certificates
cpio
createrepo-c
dbus
dnf
git
gpg
haproxy
iproute2
mmdebstrap
passwd
prometheus
rpm
systemd-container
xz-utils
zstd
"

missing=
for p in $packages; do
	[ "$(dpkg-query --show --showformat='${db:Status-Status}' "$p" 2>/dev/null || :)" = installed ] || missing="$missing $p"
done
[ -n "$missing" ] || exit 0

if [ "$(id -u)" -ne 0 ]; then
	echo "missing Debian packages, and only root can install them:$missing" >&2
	exit 1
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update --quiet=2 </dev/null
# shellcheck disable=SC2086 # a list
apt-get install --quiet=2 --yes --no-install-recommends $missing </dev/null
