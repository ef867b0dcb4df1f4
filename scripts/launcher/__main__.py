"""Entry of ``./rex``: ``python scripts/launcher <command> …``."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from launcher.cli import main

sys.exit(main(sys.argv[1:]))
