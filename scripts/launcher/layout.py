"""Where everything the launcher makes is kept."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from launcher.failure import Failed

ROOT = Path(__file__).resolve().parent.parent.parent


@dataclass(frozen=True, slots=True)
class Layout:
    """``root`` is the checkout, ``state`` the directory that may be deleted to start afresh."""

    root: Path
    state: Path

    @property
    def tools(self) -> Path:
        """uv, and Go, Node, Chromium, Redis and PostgreSQL where the machine has none."""
        return self.root / ".boot"

    @property
    def venv(self) -> Path:
        return self.root / ".venv"

    @property
    def python(self) -> Path:
        return self.venv / "bin" / "python"

    @property
    def requirements(self) -> Path:
        return self.root / "requirements"

    @property
    def go_service(self) -> Path:
        return self.root / "go" / "fanout-service"

    @property
    def node_modules(self) -> Path:
        return self.root / "node_modules"

    @property
    def vendored(self) -> Path:
        return self.root / "static" / "vendor"

    @property
    def bin(self) -> Path:
        return self.state / "bin"

    @property
    def weights(self) -> Path:
        return self.state / "weights"

    @property
    def stamps(self) -> Path:
        return self.state / "stamps"

    @property
    def logs(self) -> Path:
        return self.state / "logs"

    @property
    def run_record(self) -> Path:
        return self.state / "run.json"

    @property
    def secret_key(self) -> Path:
        return self.state / "secret_key"

    @property
    def api_key(self) -> Path:
        return self.state / "api_key"

    @property
    def sign_in(self) -> Path:
        """The first sign-in, until it was shown."""
        return self.state / "sign_in.json"


def layout_from(environ: Mapping[str, str]) -> Layout:
    """The layout of this checkout; ``REX_STATE_DIR`` moves the state, and the directory is made.

    Raises Failed when something else is in its place.
    """
    state = Path(environ.get("REX_STATE_DIR") or ROOT / ".rex").expanduser().absolute()
    # Keys and prompts live here: nobody else on the machine has business in it.
    try:
        state.mkdir(parents=True, exist_ok=True, mode=0o700)
    except (FileExistsError, NotADirectoryError):
        raise Failed(
            f"{state} cannot be the state directory: there is a file in the way.",
            advice="Set REX_STATE_DIR to a directory, or unset it (.rex in the checkout is used).",
        ) from None
    layout = Layout(ROOT, state)
    for folder in (layout.bin, layout.stamps, layout.logs):
        folder.mkdir(exist_ok=True)
    # A child started in another directory must mean the same place.
    os.environ["REX_STATE_DIR"] = str(state)
    return layout
