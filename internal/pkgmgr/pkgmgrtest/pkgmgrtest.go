// Package pkgmgrtest has small package managers for tests: shell programs that
// take the arguments of apt-get, dnf, yum and their databases' programs, keep a
// database below $AMIAGENT_ROOT, and print what the real ones print, word for
// word where the agent reads it. The real programs are tested too, behind the build tag system.
//
// A machine's repositories are the file /repo, with lines of
// "name version" (dnf: an optional third word is what it conflicts with). What the
// manager knows of it is a copy, made by apt-get update or by a first dnf.
package pkgmgrtest

import "maps"

// Apt is apt-get, apt-cache and dpkg.
//
// Files that steer it: /repo; /interrupted makes apt-get refuse until dpkg
// --configure -a; /hold-lock N makes it fail N times as for a taken lock;
// /full makes the disk full; /badscript NAME fails that package's script.
func Apt() map[string]string {
	return map[string]string{"apt-get": aptGet, "apt-cache": aptCache, "dpkg": dpkg}
}

// Dnf is dnf 4 and rpm. /conflicts has lines of two names that exclude each
// other; /rpmlock N makes N transactions fail as for a taken lock; /exclude has
// names that dnf.conf leaves out.
func Dnf() map[string]string { return map[string]string{"dnf": rpmDB + dnf, "rpm": rpmDB + rpm} }

// Yum is yum 3.4 and rpm, steered as Dnf.
func Yum() map[string]string { return map[string]string{"yum": rpmDB + yum, "rpm": rpmDB + rpm} }

// With is programs and others that replace or join them.
func With(programs, more map[string]string) map[string]string {
	all := maps.Clone(programs)
	maps.Copy(all, more)
	return all
}

const aptGet = `
R=$AMIAGENT_ROOT; D=$R/var/lib/dpkg; L=$R/var/lib/apt/lists/known
n=$(cat $R/hold-lock 2>/dev/null || echo 0)
if [ "$n" -gt 0 ]; then
	echo $((n - 1)) >$R/hold-lock
	echo "E: Could not get lock /var/lib/dpkg/lock-frontend. It is held by process 4711 (apt)" >&2
	echo "E: Unable to acquire the dpkg frontend lock (/var/lib/dpkg/lock-frontend), is another process using it?" >&2
	exit 100
fi
verb= specs= download=
while [ $# -gt 0 ]; do
	case $1 in
	-o) shift; case $1 in Dir::Etc::sourcelist=*) source=${1#*=} ;; esac ;;
	--download-only) download=yes ;;
	-*) ;;
	*) if [ -z "$verb" ]; then verb=$1; else specs="$specs $1"; fi ;;
	esac
	shift
done
if [ $verb = update ]; then
	if [ -n "$source" ]; then
		echo "--- $source"; cat "$R$source"
	fi
	if [ -e $R/unreachable ]; then
		echo "Err:1 https://deb.example.com ./ InRelease"
		echo "  Could not resolve 'deb.example.com'"
		echo "W: Failed to fetch https://deb.example.com/InRelease  Could not resolve 'deb.example.com'"
		echo "W: Some index files failed to download. They have been ignored, or old ones used instead."
		exit 0
	fi
	mkdir -p ${L%/*}; cp $R/repo $L.new 2>/dev/null || : >$L.new; mv $L.new $L
	echo "Reading package lists..."
	exit 0
fi
if [ -e $R/interrupted ]; then
	echo "E: dpkg was interrupted, you must manually run 'dpkg --configure -a' to correct the problem. " >&2
	exit 100
fi
if [ -e $R/full ]; then
	echo "E: You don't have enough free space in /var/cache/apt/archives/." >&2
	exit 100
fi
known() { grep -s "^$1 " $L | sort -rV | head -1 | cut -d' ' -f2; }
bad=
for s in $specs; do
	case $s in
	*=*) ;;
	*-) ;;
	*) if [ -z "$(known $s)" ]; then echo "E: Unable to locate package $s" >&2; bad=yes; fi ;;
	esac
done
[ -z "$bad" ] || exit 100
if [ -n "$download" ]; then
	mkdir -p $R/var/cache/apt/archives
	for s in $specs; do case $s in *-) ;; *) : >$R/var/cache/apt/archives/${s%=*}.deb ;; esac; done
	exit 0
fi
entry() { # name version state
	printf 'Package: %s\nStatus: install ok %s\nArchitecture: amd64\nVersion: %s\n\n' $1 $3 $2
}
without() { awk -v n="Package: $1" 'BEGIN { RS=""; ORS="\n\n" } index($0, n "\n") != 1' $D/status; }
mkdir -p $D; touch $D/status
code=0
new=$D/status-new
for s in $specs; do
	case $s in
	*-) without ${s%-} >$new ;;
	*)
		name=${s%%=*} version=${s#*=}
		[ $version != $s ] || version=$(known $s)
		state=installed
		if grep -qsx $name $R/badscript; then
			state=half-configured code=100
			echo "dpkg: error processing package $name (--configure):" >&2
			echo " installed $name package post-installation script subprocess returned error exit status 1" >&2
			echo "E: Sub-process /usr/bin/dpkg returned an error code (1)" >&2
		fi
		{ without $name; entry $name $version $state; } >$new
		;;
	esac
	mv $new $D/status
done
exit $code
`

const aptCache = `
L=$AMIAGENT_ROOT/var/lib/apt/lists/known
verb=$1; shift
case $verb in
pkgnames) grep -s "^$1" $L | cut -d' ' -f1 | sort -u ;;
policy)
	for n; do
		all=$(grep -s "^$n " $L | cut -d' ' -f2 | sort -rV)
		[ -n "$all" ] || continue
		set -- $all
		printf '%s:\n  Installed: (none)\n  Candidate: %s\n  Version table:\n' $n $1
		for v; do printf '     %s 500\n        500 https://deb.example.com ./ Packages\n' $v; done
	done ;;
esac
`

const dpkg = `rm -f $AMIAGENT_ROOT/interrupted
`

// The database is the file rpmdb: name, epoch, version, release and architecture
// with tabs between, and the file provides: a name, and what has it.
const rpmDB = `
R=$AMIAGENT_ROOT; DB=$R/rpmdb
line() { # name [epoch:]version-release
	case $2 in *:*) e=${2%%:*} v=${2#*:} ;; *) e=0 v=$2 ;; esac
	printf '%s\t%s\t%s\t%s\tx86_64\n' $1 $e ${v%-*} ${v##*-}
}
row() { [ ! -e $DB ] || awk -F'\t' -v n=$1 '$1 == n' $DB; }
# best finds the highest version of a spec, name or name-glob, as "name version".
best() {
	while read -r name version rest; do
		bare=${version#*:}
		case $name in $1) echo "$name $version"; continue ;; esac
		case $name-$version in $1 | $1-*) echo "$name $version"; continue ;; esac
		case $name-$bare in $1 | $1-*) echo "$name $version" ;; esac
	done <$R/cache | sort -k2,2rV | head -1
}
put() { { awk -F'\t' -v n=$1 '$1 != n' $DB; line $1 $2; } | sort >$DB-new && mv $DB-new $DB; }
drop() { awk -F'\t' -v n=$1 '$1 != n' $DB >$DB-new && mv $DB-new $DB; }
rpmlock() {
	n=$(cat $R/rpmlock 2>/dev/null || echo 0)
	[ "$n" -gt 0 ] || return 0
	echo $((n - 1)) >$R/rpmlock
	echo "RPM: error: can't create transaction lock on /var/lib/rpm/.rpm.lock (Resource temporarily unavailable)"
	echo "Error: Could not run transaction." >&2
	return 1
}
`

const rpm = `
mode=named
while [ $# -gt 0 ]; do
	case $1 in
	-q) ;;
	--qf) shift ;;
	--whatprovides) mode=provides ;;
	*) break ;;
	esac
	shift
done
missing=0
for n; do
	if [ $mode = named ]; then
		found=$(row $n)
		[ -n "$found" ] && echo "$found" && continue
		echo "package $n is not installed"
	else
		who=$(awk -v n=$n '$1 == n { print $2 }' $R/provides 2>/dev/null)
		found=$([ -n "$who" ] && row $who)
		[ -n "$found" ] && printf '%s\t%s %s \n' "$found" $who $n && continue
		echo "no package provides $n"
	fi
	missing=$((missing + 1))
done
exit $missing
`

const dnf = `
verb= specs= download= erasing=
for a; do
	case $a in
	--downloadonly) download=yes ;;
	--allowerasing) erasing=yes ;;
	--setopt=reposdir=*) dir=${a#--setopt=reposdir=} ;;
	-*) ;;
	*) if [ -z "$verb" ]; then verb=$a; else specs="$specs $a"; fi ;;
	esac
done
transaction() { # install..., then "-", then remove...
	todo= gone= removing=
	for s; do
		if [ "$s" = - ]; then removing=yes; continue; fi
		if [ -n "$removing" ]; then gone="$gone $s"; continue; fi
		set -- $(best "$s")
		todo="$todo $1/$2"
	done
	for t in $todo; do
		while read -r a b; do
			if [ $a = ${t%/*} ] && [ -n "$(row $b)" ]; then
				case " $gone " in *" $b "*) continue ;; esac
				{
					echo "Error: "
					echo " Problem: problem with installed package $b-1.0-1.x86_64"
					echo "  - package $a-${t#*/}.x86_64 conflicts with $b provided by $b-1.0-1.x86_64"
					echo "  - conflicting requests"
				} >&2
				return 1
			fi
		done <<-END
			$(cat $R/conflicts 2>/dev/null)
		END
	done
	rpmlock || return 1
	for t in $todo; do put ${t%/*} ${t#*/}; done
	for g in $gone; do drop $g; done
	echo "Complete!"
}
resolve() { # prints what cannot be found
	missing=
	for s; do
		if grep -qsx "$s" $R/exclude; then
			echo "All matches were filtered out by exclude filtering for argument: $s"
			missing="$missing $s"
		elif [ -z "$(best "$s")" ]; then
			echo "No match for argument: $s"
			missing="$missing $s"
		fi
	done
	[ -z "$missing" ] && return
	echo "Error: Unable to find a match:$missing" >&2
	return 1
}
[ -e $DB ] || : >$DB
[ -e $R/cache ] || cp $R/repo $R/cache
case $verb in
clean) rm -f $R/cache; exit 0 ;;
makecache)
	cat $R$dir/*.repo
	if [ -e $R/unreachable ]; then
		echo "Error: Failed to download metadata for repo 'x': Cannot download repomd.xml: Status code: 403 for https://rpm.example.com/repodata/repomd.xml" >&2
		exit 1
	fi
	echo "Metadata cache created."; exit 0 ;;
repoquery) sort $R/cache; exit 0 ;;
install)
	resolve $specs || exit 1
	if [ -n "$download" ]; then
		mkdir -p $R/var/cache/dnf
		for s in $specs; do set -- $(best "$s"); : >$R/var/cache/dnf/$1.rpm; done
		exit 0
	fi
	transaction $specs || exit 1 ;;
remove) transaction - $specs || exit 1 ;;
shell)
	install= remove=
	while read -r word rest; do
		case $word in
		install) for s in $rest; do resolve $s && install="$install $s"; done ;;
		remove) remove=$rest ;;
		run) transaction $install - $remove ;;
		esac
	done
	exit 0 ;;
esac
exit 0
`

const yum = `
verb= specs= download=
for a; do
	case $a in
	--downloadonly) download=yes ;;
	-*) ;;
	*) if [ -z "$verb" ]; then verb=$a; else specs="$specs $a"; fi ;;
	esac
done
[ -e $DB ] || : >$DB
[ -e $R/cache ] || cp $R/repo $R/cache
do_install() {
	some=
	for s; do
		set -- $(best "$s")
		if [ -z "$1" ]; then echo "No package $s available."; continue; fi
		have=$(row $1 | cut -f3,4 | tr '\t' -)
		if [ -n "$have" ] && [ "$(printf '%s\n%s\n' $have ${2#*:} | sort -V | tail -1)" = $have ]; then
			echo "Package $1-$have.x86_64 already installed and latest version"
			continue
		fi
		some=yes; put $1 $2
	done
	[ -n "$some" ] || { echo "Nothing to do"; return 0; }
	echo "Complete!"
}
do_downgrade() { for s; do set -- $(best "$s"); [ -z "$1" ] || put $1 $2; done; echo "Complete!"; }
case $verb in
clean) rm -f $R/cache ;;
install)
	if [ -n "$download" ]; then
		mkdir -p $R/var/cache/yum
		for s in $specs; do set -- $(best "$s"); [ -z "$1" ] || : >$R/var/cache/yum/$1.rpm; done
		echo 'exiting because "Download Only" specified'
		exit 0
	fi
	rpmlock || exit 1
	do_install $specs ;;
downgrade) [ -n "$download" ] || do_downgrade $specs ;;
remove) for s in $specs; do drop $s; done ;;
shell)
	while read -r word rest; do
		case $word in
		install) do_install $rest ;;
		downgrade) do_downgrade $rest ;;
		remove) for s in $rest; do drop $s; done ;;
		esac
	done ;;
esac
exit 0
`
