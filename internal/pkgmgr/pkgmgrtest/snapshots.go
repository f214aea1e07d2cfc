package pkgmgrtest

// AptSnapshots is apt of a version that has snapshots (when the machine's
// database says so) with apt-config. Its sources are the one-line files of
// /etc/apt. It knows the snapshot servers that -o Acquire::Snapshots::URI::Host::
// and the files of apt.conf.d name. Packages come from /releases/MOMENT, or
// /repo without a moment, with lines of "name version".
func AptSnapshots() map[string]string {
	return map[string]string{"apt-get": aptSnapshots, "apt-config": aptConfig, "apt-cache": aptCache, "dpkg": dpkg}
}

const aptConf = `
R=$AMIAGENT_ROOT; D=$R/var/lib/dpkg
conf() { cat $R/etc/apt/apt.conf.d/* 2>/dev/null | sed -n "s|^$1 \"\(.*\)\";.*|\1|p" | tail -1; }
`

const aptConfig = aptConf + `
conf APT::Snapshot
`

const aptSnapshots = aptConf + `
verb= specs= print= moment=$(conf APT::Snapshot) servers=
while [ $# -gt 0 ]; do
	case $1 in
	-o) shift; case $1 in
		APT::Snapshot=*) moment=${1#*=} ;;
		Acquire::Snapshots::URI::Host::*) s=${1#Acquire::Snapshots::URI::Host::}; servers="$servers ${s%%=*}|${s#*=}" ;;
		esac ;;
	--print-uris) print=yes ;;
	-*) ;;
	*) if [ -z "$verb" ]; then verb=$1; else specs="$specs $1"; fi ;;
	esac
	shift
done
if [ -n "$print" ]; then
	cat $R/etc/apt/sources.list $R/etc/apt/sources.list.d/*.list 2>/dev/null | sed -n 's|^deb \(\[[^]]*\] \)\{0,1\}||p' | while read -r uri suite rest; do
		host=${uri#*//}; host=${host%%[:/]*}
		echo "'${uri%/}/dists/$suite/InRelease' x 0 "
		for s in $servers; do
			[ "${s%%|*}" = "$host" ] || continue
			to=$(echo "${s#*|}" | sed "s|@SNAPSHOTID@|$moment|")
			[ -z "$moment" ] || echo "'${to%/}/dists/$suite/InRelease' x 0 "
		done
	done
	exit 0
fi
offers=$R/repo
[ -z "$moment" ] || offers=$R/releases/$moment
if [ ! -f $offers ]; then
	echo "E: The repository 'http://snapshot.example.com/$moment noble InRelease' does not have a Release file." >&2
	exit 100
fi
if [ $verb = update ]; then mkdir -p $R/var/lib/apt/lists; : >$R/var/lib/apt/lists/x_InRelease; exit 0; fi
[ ! -e $R/full ] || { echo "E: You don't have enough free space in /var/cache/apt/archives/." >&2; exit 100; }
entry() { printf 'Package: %s\nStatus: install ok installed\nArchitecture: amd64\nVersion: %s\n\n' $1 $2; }
without() { awk -v n="Package: $1" 'BEGIN { RS=""; ORS="\n\n" } index($0, n "\n") != 1' $D/status; }
have() { awk -v n="Package: $1" 'BEGIN { RS="" } index($0, n "\n") == 1' $D/status | sed -n 's/^Version: //p'; }
put() { { without $1; entry $1 $2; } >$D/status-new; mv $D/status-new $D/status; }
case $verb in
upgrade)
	while read -r name version; do
		now=$(have $name)
		[ -n "$now" ] && [ "$(printf '%s\n%s\n' $now $version | sort -V | tail -1)" != "$now" ] && put $name $version
	done <$offers ;;
install) for s in $specs; do n=${s%%=*}; put ${n%:*} ${s#*=}; done ;;
esac
exit 0
`
