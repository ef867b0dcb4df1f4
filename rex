#!/bin/sh
# Finds a Python that can run the launcher and hands over to it.
set -eu
self=$0
while [ -h "$self" ]; do
    target=$(readlink "$self")
    case $target in /*) self=$target ;; *) self=$(dirname "$self")/$target ;; esac
done
root=$(CDPATH= cd -- "$(dirname -- "$self")" && pwd -P)

for name in ${REX_PYTHON:-} python3 python3.14 python3.13 python3.12 python3.11 python; do
    if "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
        exec "$name" -B "$root/scripts/launcher" "$@"
    fi
done
echo "rex: needs Python 3.11 or newer, and found none on PATH." >&2
echo "     Install it (Debian: apt install python3; macOS: brew install python3) or set REX_PYTHON to one." >&2
exit 1
