#!/bin/bash
# Everything that is wrong is told, then the exit code says whether anything was.
set -uo pipefail
cd "$(dirname "$0")/.."

go=${GO:-go}
tool() { "$go" tool -modfile=tools/go.mod "$@"; }
failed=0
check() { # NAME COMMAND...
	local name=$1 out
	shift
	if out=$("$@" 2>&1) && { [ "$name" != gofmt ] || [ -z "$out" ]; }; then
		echo "ok    $name"
	else
		printf 'FAIL  %s\n%s\n' "$name" "$out"
		failed=1
	fi
}

check gofmt gofmt -l $(git ls-files -z --cached --others --exclude-standard '*.go' | xargs -0 ls -d 2>/dev/null)
check vet "$go" vet ./...
check 'vet, system tests' "$go" vet -tags system ./...
# Once with the tag: code that only system tests use is not unused.
check staticcheck tool staticcheck -tags system ./...
check errcheck tool errcheck -ignoretests -exclude tools/errcheck.txt ./...
check 'go mod tidy' "$go" mod tidy -diff
check 'go mod tidy, tools' "$go" -C tools mod tidy -diff

# govulncheck needs the database of vuln.go.dev, which not every network reaches.
out=$(tool govulncheck ./... 2>&1)
case $? in
0) echo "ok    govulncheck" ;;
*)
	if grep -qE 'vuln\.go\.dev.*(dial|no such host|timeout|refused|Forbidden|403|407|502|503|x509|EOF)|fetching vulnerabilities' <<<"$out"; then
		printf 'left out  govulncheck: its database cannot be reached (%s)\n' "$(tail -n1 <<<"$out")"
	else
		printf 'FAIL  govulncheck\n%s\n' "$out"
		failed=1
	fi
	;;
esac
exit "$failed"
