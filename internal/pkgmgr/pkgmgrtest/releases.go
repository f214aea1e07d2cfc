package pkgmgrtest

// DnfReleases is dnf 4 and rpm with versioned repositories, as on Amazon Linux
// 2023: the file /releases/NAME has lines of "name version", the package
// system-release among them, and a release without a file answers 403. What
// dnf makes of variables, locks and broken repositories is what dnf 4.14 was
// seen to do.
//
// $releasever is --releasever, else etc/dnf/vars/releasever, else
// etc/yum/vars/releasever, else the version of the installed system-release.
func DnfReleases() map[string]string {
	return map[string]string{"dnf": rpmDB + releasever + dnfReleases, "rpm": rpmDB + rpmAll}
}

// YumReleases is yum 3.4 and rpm, the same way: $releasever is
// etc/yum/vars/releasever, else --releasever, else releasever= in etc/yum.conf, else the
// version of system-release. Without /releases the repositories are at no
// release, as on Amazon Linux 2, and /repo is what they have.
func YumReleases() map[string]string {
	return map[string]string{"yum": rpmDB + releasever + yumReleases, "rpm": rpmDB + rpmAll}
}

const rpmAll = `
case "$*" in
-qa*) cat $DB 2>/dev/null; exit 0 ;;
esac
` + rpm

// first is a file's first line, as the managers read variables.
const releasever = `
first() { head -n 1 "$1" | tr -d '\n'; }
native() { row system-release | cut -f3; }
# expand prints an address with its variables filled in.
expand() {
	text=$1
	for f in $R/etc/yum/vars/* $R/etc/dnf/vars/*; do
		[ -f "$f" ] && [ "${f##*/}" != releasever ] || continue
		text=$(printf %s "$text" | sed "s|\$${f##*/}|$(first "$f")|g")
	done
	printf %s "$text" | sed -e "s|\$releasever|$release|g" -e 's|$basearch|x86_64|g'
}
sync() { # upgrade or distro-sync, to the packages of a file
	while read -r name version; do
		have=$(row $name | awk -F'\t' '{ print ($2 == 0 ? "" : $2 ":") $3 "-" $4 }')
		[ -n "$have" ] && [ "$have" != "$version" ] || continue
		newest=$(printf '%s\n%s\n' "$have" "$version" | sort -V | tail -1)
		if [ "$1" = distro-sync ] || [ "$newest" = "$version" ]; then
			put $name $version
			[ ! -e $R/cut-off ] || { rm $R/cut-off; exit 137; }
		fi
	done <$2
}
`

const dnfReleases = `
verb= strict= release=
for a; do
	case $a in
	--setopt=*.skip_if_unavailable=False) strict=yes ;;
	--releasever=*) release=${a#--releasever=} given=yes ;;
	-*) ;;
	*) [ -n "$verb" ] || verb=$a ;;
	esac
done
if [ -z "$given" ]; then
	if [ -e $R/etc/dnf/vars/releasever ]; then release=$(first $R/etc/dnf/vars/releasever)
	elif [ -e $R/etc/yum/vars/releasever ]; then release=$(first $R/etc/yum/vars/releasever)
	else release=$(native); fi
fi
case $verb in
repoinfo)
	cat $R/etc/yum.repos.d/*.repo | while IFS= read -r line; do
		case $line in
		\[*) id=${line#\[}; echo "Repo-id            : ${id%\]}" ;;
		mirrorlist=*) echo "Repo-mirrors       : $(expand "${line#mirrorlist=}")" ;;
		baseurl=*) echo "Repo-baseurl       : $(expand "${line#baseurl=}")" ;;
		esac
	done
	echo "Total packages: 0"
	exit 0 ;;
makecache | upgrade | distro-sync)
	from=$release
	[ "$from" != latest ] || from=$(ls $R/releases | sort -V | tail -1)
	if [ ! -f "$R/releases/$from" ]; then
		echo "Errors during downloading metadata for repository 'amazonlinux':"
		echo "  - Status code: 403 for https://cdn.example.com/core/mirrors/$release/x86_64/mirror.list (IP: 192.0.2.10)"
		echo "Error: Failed to download metadata for repo 'amazonlinux': Cannot prepare internal mirrorlist: Status code: 403 for https://cdn.example.com/core/mirrors/$release/x86_64/mirror.list" >&2
		[ -z "$strict" ] || exit 1
		echo "Ignoring repositories: amazonlinux" >&2
		echo "Dependencies resolved."
		echo "Nothing to do."
		echo "Complete!"
		exit 0
	fi
	[ $verb != makecache ] || { echo "Metadata cache created."; exit 0; }
	rpmlock || exit 1
	sync $verb $R/releases/$from
	echo "Complete!" ;;
esac
exit 0
`

const yumReleases = `
verb= release=
for a; do
	case $a in
	--releasever=*) release=${a#--releasever=} ;;
	-*) ;;
	*) [ -n "$verb" ] || verb=$a ;;
	esac
done
conf=$(sed -n 's/^releasever=//p' $R/etc/yum.conf 2>/dev/null)
if [ -f $R/etc/yum/vars/releasever ] && [ ! -L $R/etc/yum/vars/releasever ]; then release=$(first $R/etc/yum/vars/releasever)
elif [ -z "$release" ]; then release=${conf:-$(native)}; fi
case $verb in
version) echo "Installed: $release/x86_64                       2:0123456789abcdef"; exit 0 ;;
repolist)
	cat $R/etc/yum.repos.d/*.repo | while IFS= read -r line; do
		case $line in
		\[*) id=${line#\[}; echo "Repo-id      : ${id%\]}" ;;
		mirrorlist*=*) echo "Repo-mirrors : $(expand "${line#*=}")" ;;
		baseurl*=*) echo "Repo-baseurl : $(expand "${line#*=}")" ;;
		esac
	done
	exit 0 ;;
clean) exit 0 ;;
makecache | update | distro-sync)
	from=$release file=$R/repo
	if [ -d $R/releases ]; then
		[ "$from" != latest ] || from=$(ls $R/releases | sort -V | tail -1)
		file=$R/releases/$from
	fi
	if [ ! -f "$file" ]; then
		echo "http://repo.example.com/$release/main/mirror.list?instance_id=i-1: [Errno 14] HTTP Error 403 - Forbidden" >&2
		echo "Error: Cannot retrieve repository metadata (repomd.xml) for repository: amzn-main/$release. Please verify its path and try again" >&2
		exit 1
	fi
	[ $verb != makecache ] || exit 0
	sync $verb $file
	echo "Complete!" ;;
esac
exit 0
`
