#!/bin/sh
# Tests the fifty things of fifty.yaml, as somebody does it who knows the tools
# and wants it fast: one call of a program for all that it can look at in one
# call. What content and metadata should be was written down, in sums and stats,
# when the machine was as it should be. Says what is not, and then exits with 1.
set -u
kept=/srv/bench/kept
bad=0
want() { # what, as it is, as it should be
	[ "$2" = "$3" ] || { echo "$1: $2"; bad=1; }
}
not() { # what
	echo "$1"
	bad=1
}

# Content: repository, key files, sysctl.d, files, copied artifacts, unit files.
sha256sum --check --quiet "$kept/sums" || bad=1
# Owner, group, mode and kind of the same and of folders and mount points.
want metadata "$(stat --format '%n %F %U:%G %a' $(cat "$kept/names") 2>&1)" "$(cat "$kept/stats")"
want links "$(readlink /opt/app /opt/tools /usr/local/bin/app)" "$(cat "$kept/links")"
for f in /etc/apt/sources.list.d/retired.sources /etc/cron.d/old-job; do
	[ ! -e "$f" ] || not "$f is there"
done

want packages "$(dpkg-query --show --showformat '${Package} ${db:Status-Status} ${Version}\n' \
	bench-one bench-two bench-three bench-four bench-five 2>&1)" "$(cat "$kept/packages")"
[ "$(dpkg-query --show --showformat '${db:Status-Status}' bench-gone 2>/dev/null)" != installed ] || not "bench-gone is there"

mountpoint -q /srv/data || not "/srv/data is not mounted"
mountpoint -q /opt/model || not "/opt/model is not mounted"

want groups "$(getent group ops shared)" "$(cat "$kept/groups")"
! getent group retired >/dev/null || not "group retired is there"
want users "$(getent passwd app deploy batch)" "$(cat "$kept/users")"
case " $(id -nG app) " in *" ops "*) ;; *) not "app is not in ops" ;; esac
! getent passwd intern >/dev/null || not "user intern is there"

want sysctl "$(sysctl -n net.core.somaxconn net.ipv4.ip_local_port_range net.ipv4.tcp_keepalive_time net.ipv4.tcp_fin_timeout)" "$(cat "$kept/sysctl")"

want active "$(systemctl is-active app.service worker.service clean.timer)" "$(cat "$kept/active")"
! systemctl is-active --quiet apt-daily.timer e2scrub_all.timer || not "a timer is active"
want enabled "$(systemctl is-enabled app.service worker.service clean.timer apt-daily.timer e2scrub_all.timer 2>&1)" "$(cat "$kept/enabled")"

for f in /var/lib/bench/warm /var/lib/bench/index; do
	[ -e "$f" ] || not "$f is missing"
done
grep -qx bench /var/lib/bench/members || not "is no member"
grep -qx on /var/lib/bench/enrolled || not "is not enrolled"
# Both may have been written within one tick of the clock.
[ ! /etc/issue.net -nt /var/lib/bench/issue-seen ] || not "/etc/issue.net is not seen"

# The probes; an answer over HTTP is one at the TCP port too.
curl --silent --fail --output /dev/null http://127.0.0.1:8080/ || not "the application does not answer"
/opt/app/bin/app ready || not "the application is not ready"
exit $bad
