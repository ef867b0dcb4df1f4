"""Unpacks the packaged Chromium: ``python unpack_chromium.py DIRECTORY`` (needs brotli).

Leaves in DIRECTORY the browser, its libraries and fonts, and ``chromium.sh``, which starts it.
"""

import io
import sys
import tarfile
from pathlib import Path
from typing import Any

import brotli

_START = """#!/bin/sh
here=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd -P)
export LD_LIBRARY_PATH="$here/lib" FONTCONFIG_FILE="$here/fonts.conf"
exec "$here/chromium" --headless=shell "$@"
"""
# The archive's own names directories of the host it was made for.
_FONTS = """<?xml version="1.0"?>
<!DOCTYPE fontconfig SYSTEM "fonts.dtd">
<fontconfig>
  <dir prefix="relative">fonts</dir>
  <dir>/usr/share/fonts</dir>
</fontconfig>
"""

_FILTER: dict[str, Any] = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}


def unpack(target: Path) -> None:
    packed = target / "node_modules" / "@sparticuz" / "chromium" / "bin"
    browser = target / "chromium"
    browser.write_bytes(brotli.decompress((packed / "chromium.br").read_bytes()))
    browser.chmod(0o755)
    for name in ("al2023", "fonts", "swiftshader"):
        content = brotli.decompress((packed / f"{name}.tar.br").read_bytes())
        with tarfile.open(fileobj=io.BytesIO(content)) as archive:
            # Early 3.11 has no filters; the archive was verified by the lock's digest.
            archive.extractall(target, **_FILTER)  # noqa: S202
    (target / "fonts.conf").write_text(_FONTS, encoding="utf-8")
    start = target / "chromium.sh"
    start.write_text(_START, encoding="utf-8")
    start.chmod(0o755)


if __name__ == "__main__":
    unpack(Path(sys.argv[1]))
