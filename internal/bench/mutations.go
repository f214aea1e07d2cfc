package bench

// mutation changes one of the fifty things by hand.
type mutation struct {
	step string
	do   string // for sh
}

// mutations has one for every step of fifty.yaml, in its order.
var mutations = []mutation{
	{"repositories.local", "echo '# by hand' >>/etc/apt/sources.list.d/local.sources"},
	{"repositories.retired", "echo '# by hand' >/etc/apt/sources.list.d/retired.sources"},

	{"packages.bench-one", "dpkg --remove bench-one"},
	// Versions of another length: apt keeps taking its cache for good when dpkg's
	// status file has the size and the second of what was read.
	{"packages.bench-two", "dpkg --install /srv/bench/repo/bench-two_1.9.9_all.deb"},
	{"packages.bench-three", "dpkg --install /srv/bench/repo/bench-three_1.1.9_all.deb"},
	{"packages.bench-four", "dpkg --purge bench-four"},
	{"packages.bench-five", "dpkg --remove bench-five"},
	{"packages.bench-gone", "dpkg --install /srv/bench/repo/bench-gone_1.0_all.deb"},

	{"mounts./srv/data", "chmod 0777 /srv/data"},
	{"mounts./opt/model", "umount /opt/model"},

	{"groups.ops", "groupmod --gid 3999 ops"},
	{"groups.shared", "groupdel shared"},
	{"groups.retired", "groupadd retired"},

	{"users.app", "gpasswd --delete app ops"},
	{"users.deploy", "echo 'ssh-ed25519 AAAA intruder' >>/home/deploy/.ssh/authorized_keys"},
	{"users.batch", "userdel batch"},
	{"users.intern", "useradd intern"},

	{"sysctl.net.core.somaxconn", "sysctl -qw net.core.somaxconn=128"},
	{"sysctl.net.ipv4.ip_local_port_range", "sysctl -qw net.ipv4.ip_local_port_range='20000 30000'"},
	{"sysctl.net.ipv4.tcp_keepalive_time", "rm /etc/sysctl.d/99-zz-amiagent-net-ipv4-tcp_keepalive_time.conf"},
	{"sysctl.net.ipv4.tcp_fin_timeout", "sysctl -qw net.ipv4.tcp_fin_timeout=60"},

	{"artifacts.app", "ln -sfn /srv /opt/app"},
	{"artifacts.tools", "rm /opt/tools"},
	{"artifacts.tool", "printf x | dd of=/usr/local/bin/tool bs=1 seek=4000000 conv=notrunc status=none"},
	{"artifacts.words", "chmod 0600 /var/lib/bench/words"},

	{"files./etc/motd", "echo hacked >>/etc/motd"},
	{"files./etc/app", "chmod 0777 /etc/app"},
	{"files./etc/app/app.toml", "sed -i s/8080/8081/ /etc/app/app.toml"},
	{"files./etc/app/license", "rm /etc/app/license"},
	{"files./etc/app/limits.conf", "chown daemon /etc/app/limits.conf"},
	{"files./etc/app/private.conf", "chmod 0644 /etc/app/private.conf"},
	{"files./etc/app/zones.db", "printf x | dd of=/etc/app/zones.db bs=1 seek=500000 conv=notrunc status=none"},
	{"files./etc/logrotate.d/app", "truncate --size 3 /etc/logrotate.d/app"},
	{"files./usr/local/bin/app", "ln -sfn /bin/true /usr/local/bin/app"},
	{"files./etc/cron.d/old-job", "mkdir -p /etc/cron.d && echo >/etc/cron.d/old-job"},
	{"files./etc/profile.d/app.sh", "mv /etc/profile.d/app.sh /etc/profile.d/app.sh~"},
	{"files./var/log/app", "chgrp daemon /var/log/app"},
	{"files./etc/sudoers.d/ops", "chmod 0644 /etc/sudoers.d/ops"},
	{"files./etc/issue.net", "echo Welcome >/etc/issue.net"},

	{"units.app.service", "systemctl stop app.service"},
	{"units.worker.service", "rm /etc/systemd/system/worker.service.d/limits.conf"},
	{"units.clean.service", "echo ExecStart=/bin/false >>/etc/systemd/system/clean.service"},
	{"units.clean.timer", "systemctl --quiet disable clean.timer"},
	{"units.apt-daily.timer", "systemctl --quiet unmask apt-daily.timer"},
	{"units.e2scrub_all.timer", "systemctl --quiet enable e2scrub_all.timer"},

	{"commands.warm", "rm /var/lib/bench/warm"},
	{"commands.index", "rm /var/lib/bench/index"},
	{"commands.join", "sed -i /bench/d /var/lib/bench/members"},
	{"commands.enroll", "rm /var/lib/bench/enrolled"},
	// What this one watches is changed; that it ran shows in what it does.
	{"commands.stamp-issue", "echo again >>/etc/issue.net; touch -d '1 hour ago' /var/lib/bench/issue-seen"},
}
