"""Copies the third-party browser modules out of node_modules into static/vendor, verified.

    python scripts/vendor_frontend.py            copy, refusing a file that is not the locked one
    python scripts/vendor_frontend.py --update   write the list of digests anew (after npm update)

static/vendor is not committed; requirements/vendored.sha256 is: every file with its digest.
"""

import hashlib
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DIGESTS = ROOT / "requirements" / "vendored.sha256"
# From node_modules/ to static/vendor/; each module travels with its licence.
FILES = {
    "marked/lib/marked.esm.js": "marked/marked.esm.js",
    # collectstatic follows the reference in the module, and fails where the map is not there.
    "marked/lib/marked.esm.js.map": "marked/marked.esm.js.map",
    "marked/LICENSE": "marked/LICENSE",
}


class WrongFile(Exception):
    """A file in node_modules is absent, or not the one whose digest is committed."""


def vendor(modules: Path, target: Path) -> None:
    """Copies FILES from ``modules`` below ``target``; raises WrongFile and then copies nothing."""
    lines = (line.split("  ", 1) for line in DIGESTS.read_text().splitlines())
    expected = {name: digest for digest, name in lines}
    for source in FILES:
        if _digest(modules / source) != expected.get(source):
            raise WrongFile(f"{source} is not the file named in {DIGESTS.name}.")
    for source, destination in FILES.items():
        (target / destination).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(modules / source, target / destination)


def _digest(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except FileNotFoundError as error:
        raise WrongFile(f"{path.name} is not in node_modules: run npm ci.") from error


def update(modules: Path) -> None:
    """Writes the digests of what is in ``modules`` now."""
    lines = [f"{_digest(modules / source)}  {source}\n" for source in FILES]
    DIGESTS.write_text("".join(lines))


def main(arguments: list[str]) -> int:
    modules = ROOT / "node_modules"
    try:
        if arguments == ["--update"]:
            update(modules)
        elif not arguments:
            vendor(modules, ROOT / "static" / "vendor")
        else:
            print(__doc__, file=sys.stderr)
            return 2
    except WrongFile as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
