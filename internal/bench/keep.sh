#!/bin/sh
# Writes down what check.sh compares with. Run once, when the machine is as it should be.
set -eu
kept=/srv/bench/kept
mkdir -p "$kept"
cd "$kept"
files="/etc/apt/sources.list.d/local.sources /etc/motd /etc/app/app.toml /etc/app/license /etc/app/limits.conf
/etc/app/private.conf /etc/app/zones.db /etc/logrotate.d/app /etc/profile.d/app.sh /etc/sudoers.d/ops /etc/issue.net
/usr/local/bin/tool /var/lib/bench/words /home/deploy/.ssh/authorized_keys
/etc/systemd/system/app.service /etc/systemd/system/worker.service /etc/systemd/system/worker.service.d/limits.conf
/etc/systemd/system/clean.service /etc/systemd/system/clean.timer
/etc/systemd/system/srv-data.mount /etc/systemd/system/opt-model.mount
$(ls /etc/sysctl.d/99-zz-amiagent-*)"
sha256sum $files >sums
echo $files /etc/app /var/log/app /srv/data /var/lib/app /home/batch >names
stat --format '%n %F %U:%G %a' $(cat names) >stats
readlink /opt/app /opt/tools /usr/local/bin/app >links
dpkg-query --show --showformat '${Package} ${db:Status-Status} ${Version}\n' bench-one bench-two bench-three bench-four bench-five >packages
getent group ops shared >groups
getent passwd app deploy batch >users
sysctl -n net.core.somaxconn net.ipv4.ip_local_port_range net.ipv4.tcp_keepalive_time net.ipv4.tcp_fin_timeout >sysctl
systemctl is-active app.service worker.service clean.timer >active
systemctl is-enabled app.service worker.service clean.timer apt-daily.timer e2scrub_all.timer >enabled 2>&1 || :
