"""The settings the tests run under: the real ones, with a state directory and key of their own.

``REX_TEST_DATABASE=postgresql`` runs them on a PostgreSQL of their own instead of SQLite.
"""

import atexit
import os
import tempfile
from contextlib import ExitStack

# Before the real settings are read, and stronger than what the developer's shell has: a test that
# found a real provider key could spend money.
_STATE_DIR = tempfile.mkdtemp(prefix="rex-tests-")
_KEPT = (
    *("REX_CHROMIUM", "REX_REDIS_SERVER", "REX_POSTGRES_BIN", "REX_LITELLM_PROXY"),
    "REX_TEST_DATABASE",
)
for _name in [name for name in os.environ if name.startswith(("REX_", "DATABASE_URL", "CACHE_"))]:
    if _name not in _KEPT:
        del os.environ[_name]
for _name in [
    name for name in os.environ if name.endswith(("_API_KEY", "_API_KEY_FILE", "_BASE_URL"))
]:
    del os.environ[_name]
os.environ["REX_SECRET_KEY"] = "only-for-tests"
os.environ["REX_STATE_DIR"] = _STATE_DIR
if os.environ.pop("REX_TEST_DATABASE", "") == "postgresql":
    from tests import postgres_server

    # Ended with the process: the connections of the whole run lead there.
    _server = ExitStack()
    atexit.register(_server.close)
    os.environ["DATABASE_URL"] = _server.enter_context(postgres_server.running()).url("rex")

from rexsite.settings import *  # noqa: E402, F403

# Hashed names need collectstatic; the browser suite runs that for real.
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
}
os.makedirs(STATIC_ROOT, exist_ok=True)  # noqa: F405, PTH103  WhiteNoise warns where it is absent
# The real one takes 0.2 s a sign-in on purpose.
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
