"""The settings the tests run under: the real ones, with a state directory and key of their own."""

import os
import tempfile

# Before the real settings are read, and stronger than what the developer's shell has: a test that
# found a real provider key could spend money.
_STATE_DIR = tempfile.mkdtemp(prefix="rex-tests-")
for _name in [name for name in os.environ if name.startswith(("REX_", "DATABASE_URL", "CACHE_"))]:
    if _name not in ("REX_CHROMIUM", "REX_REDIS_SERVER", "REX_LITELLM_PROXY"):
        del os.environ[_name]
for _name in [
    name for name in os.environ if name.endswith(("_API_KEY", "_API_KEY_FILE", "_BASE_URL"))
]:
    del os.environ[_name]
os.environ["REX_SECRET_KEY"] = "only-for-tests"
os.environ["REX_STATE_DIR"] = _STATE_DIR

from rexsite.settings import *  # noqa: E402, F403

# Hashed names need collectstatic; the browser suite runs that for real.
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
}
os.makedirs(STATIC_ROOT, exist_ok=True)  # noqa: F405, PTH103  WhiteNoise warns where it is absent
# The real one takes 0.2 s a sign-in on purpose.
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
