#!/bin/bash
# Builds the packages here and in a copy of the tree with other file times, and
# compares them byte for byte.
set -euo pipefail
cd "$(dirname "$0")/.."
version=$1

copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
git ls-files -z --cached --others --exclude-standard |
	while IFS= read -r -d '' f; do [ ! -e "$f" ] || printf '%s\0' "$f"; done 2>/dev/null |
	tar --create --null --files-from=- | tar --extract --touch --directory="$copy"

make --no-print-directory package VERSION="$version"
make --no-print-directory -C "$copy" package VERSION="$version"

for f in dist/*.deb dist/*.rpm; do
	cmp "$f" "$copy/$f" || exit 1
	echo "same bytes: $f ($(stat -c %s "$f") bytes)"
done
