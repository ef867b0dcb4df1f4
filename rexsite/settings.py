"""Every setting of Rex, read once through ``rexsite.env`` (documented in docs/settings.md)."""

import os
from datetime import timedelta
from pathlib import Path
from urllib.parse import unquote, urlsplit

from csp.constants import NONCE, NONE, SELF
from django.core.exceptions import ImproperlyConfigured
from redis import Redis

from rexsite.client_address import networks
from rexsite.env import Env

BASE_DIR = Path(__file__).resolve().parent.parent
env = Env(os.environ)

# --- what an operator sets -----------------------------------------------------------------------
STATE_DIR = Path(
    env.text(
        "REX_STATE_DIR", str(BASE_DIR / ".rex"), "Where Rex keeps its database, keys and logs."
    )
).absolute()
SECRET_KEY = env.secret("REX_SECRET_KEY", "Signs sessions and CSRF tokens; keep it secret.")
DEBUG = env.flag("REX_DEBUG", False, "Django's debug pages; never on a machine others can reach.")
ALLOWED_HOSTS = list(
    env.names("REX_ALLOWED_HOSTS", "localhost,127.0.0.1,[::1]", "Host names Rex answers to.")
)
CSRF_TRUSTED_ORIGINS = list(
    env.names(
        "REX_TRUSTED_ORIGINS", "", "Origins (https://rex.example) of proxies in front of Rex."
    )
)
BEHIND_HTTPS = env.flag(
    "REX_BEHIND_HTTPS", False, "1 when a proxy terminates TLS: secure cookies, forwarded scheme."
)
TRUSTED_PROXIES = networks(
    "REX_TRUSTED_PROXIES",
    env.names(
        "REX_TRUSTED_PROXIES",
        "",
        "Addresses or networks of proxies whose X-Forwarded-For is believed.",
    ),
)
LOGIN_ATTEMPTS = env.integer(
    "REX_LOGIN_ATTEMPTS",
    10,
    "Wrong passwords for one name from one address, after which it must wait.",
    minimum=1,
    maximum=1_000,
)
LOGIN_COOLOFF_S = env.integer(
    "REX_LOGIN_COOLOFF_S",
    300,
    "Seconds it must wait then, and after which wrong passwords are forgotten.",
    minimum=1,
    maximum=86_400,
)
TIME_ZONE = env.text("REX_TIME_ZONE", "UTC", "Zone in which pages print times.")
LOG_LEVEL = env.choice(
    "REX_LOG_LEVEL", ("DEBUG", "INFO", "WARNING", "ERROR"), "INFO", "Least level that is logged."
)
LOG_FORMAT = env.choice(
    "REX_LOG_FORMAT", ("json", "console"), "json", "One JSON object a line, or text for people."
)
# In small letters, it is no setting of Django's, whose debug pages would show its password.
database_url = env.text(
    "DATABASE_URL",
    f"sqlite:///{STATE_DIR / 'rex.sqlite3'}",
    "Where runs are kept: sqlite:///path, or postgresql://user:password@host:5432/name.",
)
DATABASE_TIMEOUT_S = env.integer(
    "REX_DATABASE_TIMEOUT_S",
    5,
    "Seconds a statement may wait for the database; then the request is refused with 503.",
    minimum=1,
    maximum=3600,
)
DATABASE_CONNECTIONS = env.integer(
    "REX_DATABASE_CONNECTIONS", 20, "Most connections one process opens to PostgreSQL.", minimum=1
)
FANOUT_BACKEND = env.choice(
    "REX_FANOUT",
    ("go", "python"),
    "go",
    "Who calls the models: the Go service, or LiteLLM in process.",
)
FANOUT_URL = env.text("REX_FANOUT_URL", "http://127.0.0.1:8099", "Address of the Go service.")
CALL_ATTEMPTS = env.integer(
    "REX_CALL_ATTEMPTS",
    3,
    "Attempts at a model that fails before its first text, from 1 to 3.",
    minimum=1,
    maximum=3,
)
CACHE_ENABLED = env.flag(
    "REX_CACHE_ENABLED",
    env.flag("CACHE_ENABLED", True, "Counts where REX_CACHE_ENABLED is not set."),
    "0: no answer is kept, none is taken from the cache.",
)
CACHE_TTL_S = env.integer(
    "REX_CACHE_TTL_SECONDS", 86_400, "How long an answer is kept, in seconds.", minimum=1
)
CACHE_BYTES = env.integer(
    "REX_CACHE_BYTES", 64 << 20, "Answers kept in memory, in bytes; 0: none are kept there."
)
REDIS_URL = env.text(
    "REX_REDIS_URL",
    "",
    "Redis that shares cached answers and remembers refusals: "
    "redis://:password@host:6379/0, rediss:// for TLS.",
)
MODELS = env.names(
    "REX_MODELS",
    "local/brisk,local/plain,local/thorough",
    "Models that answer when a request names none.",
)
SYNTHESIZER = env.text("REX_SYNTHESIZER", "local/editor", "Model that writes the synthesis.")
RUN_DEADLINE_S = env.integer(
    "REX_RUN_DEADLINE_S", 180, "Seconds after which a run is ended with what it has.", minimum=1
)
MAX_MODELS = env.integer("REX_MAX_MODELS", 8, "Most models one run may ask.", minimum=1)
MAX_PROMPT_CHARS = env.integer(
    "REX_MAX_PROMPT_CHARS", 100_000, "Longest prompt taken, in characters.", minimum=1
)
MAX_OUTPUT_TOKENS = env.integer(
    "REX_MAX_OUTPUT_TOKENS",
    8_192,
    "Longest answer asked of a model, in tokens; reasoning counts.",
    minimum=1,
    maximum=1_000_000,
)
SYNTHESIS_PROMPT_CHARS = env.integer(
    "REX_SYNTHESIS_PROMPT_CHARS",
    0,
    "Most characters of a synthesizer's prompt; 0: no limit, and the embedded model's own.",
)
MAX_CONCURRENT_RUNS = env.integer(
    "REX_MAX_CONCURRENT_RUNS", 20, "Runs one process drives at once; more wait.", minimum=1
)
DRIVE_RUNS_IN_WEB = env.flag(
    "REX_DRIVE_RUNS_IN_WEB", True, "Whether the web process drives runs itself (embedded mode)."
)

# --- Django --------------------------------------------------------------------------------------


def _database(url: str) -> dict[str, object]:
    """The DATABASES entry for an address; one that cannot be used is refused in words."""
    if url.startswith(("postgresql://", "postgres://")):
        # Only here: where SQLite is used, nothing of PostgreSQL is loaded.
        from rexsite.postgres.address import WrongAddress, database

        try:
            return database(url, timeout_s=DATABASE_TIMEOUT_S, connections=DATABASE_CONNECTIONS)
        except WrongAddress as wrong:
            raise ImproperlyConfigured(f"DATABASE_URL {wrong}") from None
    parts = urlsplit(url)
    if parts.scheme != "sqlite" or parts.netloc or not parts.path:
        raise ImproperlyConfigured(
            "DATABASE_URL takes sqlite:///absolute/path, "
            "or postgresql://user:password@host:5432/name."
        )
    return {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": "/" + unquote(parts.path).lstrip("/"),
        "CONN_MAX_AGE": None,
        "OPTIONS": {
            # A deferred transaction that reads and then writes fails at once with SQLITE_BUSY,
            # whatever the timeout; one that takes the write lock first waits its turn.
            # docs/adr/0007-sqlite-immediate.md
            "transaction_mode": "IMMEDIATE",
            "timeout": DATABASE_TIMEOUT_S,
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
        },
        # A file, not memory: the driver's threads and the web's must see one database.
        "TEST": {"NAME": str(STATE_DIR / f"test-{os.getpid()}.sqlite3")},
    }


def _check_redis(url: str) -> None:
    """Refuse an address the cache's client could not use; nothing is connected to."""
    try:
        Redis.from_url(url).connection_pool.make_connection()
    except (ValueError, TypeError):
        # Neither the value nor the client's words are repeated: both may hold a password.
        raise ImproperlyConfigured(
            "REX_REDIS_URL takes an address like redis://:password@host:6379/0; "
            "in a password, / and @ are written %2F and %40."
        ) from None


if REDIS_URL:
    _check_redis(REDIS_URL)
DATABASES = {"default": _database(database_url)}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

INSTALLED_APPS = [
    "daphne",
    "rexsite.admin_config.ConsoleConfig",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "axes",
    "csp",
    "channels",
    "rest_framework",
    "rexsite",
    "workspaces",
    "orchestration",
]

MIDDLEWARE = [
    "rexsite.request_id.RequestIdMiddleware",
    # Above what may refuse a request, so that refusals carry their headers too.
    "django.middleware.security.SecurityMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "csp.middleware.CSPMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "rexsite.reading.ReadingMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "axes.middleware.AxesMiddleware",
]

ROOT_URLCONF = "rexsite.urls"
ASGI_APPLICATION = "rexsite.asgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "workspaces.context.workspace",
                "rexsite.reading.reading",
            ],
        },
    },
]

USE_TZ = True
LANGUAGE_CODE = "en"
# Each by its own name, for whoever looks for it. The launcher compiles what is in locale/.
LANGUAGES = [("en", "English"), ("de", "Deutsch")]
LOCALE_PATHS = [BASE_DIR / "locale"]
FORMAT_MODULE_PATH = ["rexsite.formats"]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator"},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]
AUTHENTICATION_BACKENDS = ["rexsite.sign_in.PasswordBackend"]
AXES_LOCKOUT_PARAMETERS = [["username", "ip_address"]]
AXES_FAILURE_LIMIT = LOGIN_ATTEMPTS
# Without it a lock would last for ever, and with each attempt beginning anew almost so: anyone
# could keep the owner out.
AXES_COOLOFF_TIME = timedelta(seconds=LOGIN_COOLOFF_S)
AXES_RESET_COOL_OFF_ON_FAILURE_DURING_LOCKOUT = False
AXES_RESET_ON_SUCCESS = True
AXES_CLIENT_IP_CALLABLE = "rexsite.client_address.client_address"
AXES_LOCKOUT_CALLABLE = "rexsite.sign_in.locked_out"
# Kept of a failure are its name, address, browser and time, until it is forgotten; of a success
# nothing.
AXES_DISABLE_ACCESS_LOG = True
AXES_SENSITIVE_PARAMETERS = ["username", "csrfmiddlewaretoken", "next"]
AXES_ENABLE_ADMIN = False
AXES_VERBOSE = False
LOGIN_URL = "login"
LOGIN_REDIRECT_URL = "start"
LOGOUT_REDIRECT_URL = "login"
CSRF_FAILURE_VIEW = "rexsite.errors.csrf_failure"

STATIC_URL = "/static/"
STATIC_ROOT = STATE_DIR / "static"
STATICFILES_DIRS = [BASE_DIR / "static"]
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "whitenoise.storage.CompressedManifestStaticFilesStorage"},
}

# A prompt of the longest length is at most four bytes a character, and JSON may escape each as six.
MAX_JSON_BYTES = max(1_000_000, MAX_PROMPT_CHARS * 6 + 65_536)
# A form is taken far beyond that, so that a question that is too long comes back with its text.
DATA_UPLOAD_MAX_MEMORY_SIZE = 16 * MAX_JSON_BYTES
DATA_UPLOAD_MAX_NUMBER_FIELDS = 200

SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = "Lax"
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = BEHIND_HTTPS
if BEHIND_HTTPS:
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
SECURE_CONTENT_TYPE_NOSNIFF = True
SECURE_REFERRER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": [SELF],
        "script-src": [SELF, NONCE],
        "style-src": [SELF],
        "img-src": [SELF, "data:"],
        "connect-src": [SELF],
        "object-src": [NONE],
        "base-uri": [NONE],
        "form-action": [SELF],
        "frame-ancestors": [NONE],
        "require-trusted-types-for": ["'script'"],
        "trusted-types": [NONE],
    },
}

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": ["workspaces.authentication.WorkspaceAuthentication"],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["orchestration.parsers.StrictJSONParser"],
    "EXCEPTION_HANDLER": "orchestration.problems.exception_handler",
    "UNAUTHENTICATED_USER": None,
    "STRICT_JSON": True,
    # ?format= is no parameter of ours: it is refused like any other, not a 404.
    "URL_FORMAT_OVERRIDE": None,
}

DEFAULT_EXCEPTION_REPORTER_FILTER = "rexsite.debug_pages.PlacesOnly"
LOGGING_CONFIG = "rexsite.logs.configure"
LOGGING = {"level": LOG_LEVEL, "format": LOG_FORMAT}
