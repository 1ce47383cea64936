#!/bin/sh
# base-image.sh FILE: write to FILE (a tar) a root file system like python:3.11-slim-bookworm's, out
# of Debian's packages, for where that image cannot be pulled. Needs root and mmdebstrap; takes about
# a minute. The packages come from this machine's own Debian sources, where they are bookworm's.
set -eu
file=$1
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

# Of this machine's sources only those of bookworm itself: others may be for another system.
cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list 2>/dev/null \
    | grep -E '^deb .* bookworm(-updates|-security)? ' >"$folder/sources.list" || true
for source in /etc/apt/sources.list.d/*.sources; do
    if grep -qsE '^Suites:.* bookworm(-updates|-security)?( |$)' "$source"; then
        cat "$source" >>"$folder/debian.sources"
        echo >>"$folder/debian.sources"
    fi
done
set --
for source in "$folder/sources.list" "$folder/debian.sources"; do
    if [ -s "$source" ]; then set -- "$@" "$source"; fi
done
if [ $# = 0 ]; then
    echo "expected Debian bookworm's archive among this machine's apt sources (/etc/apt), found" \
        "none: give an image with Python 3.11 instead (make images BASE_IMAGE=...)" >&2
    exit 1
fi

# A virtual environment at /usr/local has the layout of the official image. Snapshots of the archive
# carry old dates, which their signatures do not need.
mmdebstrap --quiet --mode=root --variant=minbase --skip=check/empty \
    --hook-dir=/usr/share/mmdebstrap/hooks/merged-usr \
    --include=ca-certificates,libpython3.11,python3,python3-venv,usr-is-merged \
    --aptopt='Acquire::Check-Valid-Until "false"' \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/info/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt='path-exclude=/usr/share/man/*' \
    --customize-hook='chroot "$1" python3.11 -m venv /usr/local' \
    --customize-hook='rm -rf "$1"/var/lib/apt/lists/* "$1"/var/cache/*' \
    bookworm "$file" "$@"
