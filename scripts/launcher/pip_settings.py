"""What the machine's pip is told, in uv's words.

uv does not read pip's configuration. A machine that reaches packages only through an index, a
certificate or a proxy of its own says so to pip; the same must hold here, and must not be written
into the checkout. Values travel by environment, never by argument: they may hold a password.
"""

import ast
from collections.abc import Mapping

_UV_NAMES = {
    "index-url": "UV_DEFAULT_INDEX",
    "extra-index-url": "UV_INDEX",
    "find-links": "UV_FIND_LINKS",
    "trusted-host": "UV_INSECURE_HOST",
    "timeout": "UV_HTTP_TIMEOUT",
    "default-timeout": "UV_HTTP_TIMEOUT",
    "cert": "SSL_CERT_FILE",
    "proxy": "HTTPS_PROXY",
}
# uv takes several values of these separated so.
_SEPARATORS = {"UV_FIND_LINKS": ","}


def effective(config_list: str) -> dict[str, str]:
    """Settings out of ``pip config list``: later and nearer wins, as in pip itself.

    Lines read ``section.name='value'``; ``:env:`` counts over ``install``, that over ``global``.
    """
    ranks = {"global": 0, "install": 1, ":env:": 2}
    found: dict[str, tuple[int, str]] = {}
    for line in config_list.splitlines():
        key, separator, quoted = line.partition("=")
        section, _, name = key.rpartition(".")
        if not separator or section not in ranks:
            continue
        if name not in found or ranks[section] >= found[name][0]:
            found[name] = (ranks[section], _unquoted(quoted))
    return {name: value for name, (_, value) in found.items()}


def _unquoted(quoted: str) -> str:
    try:
        return str(ast.literal_eval(quoted))
    except (ValueError, SyntaxError):
        return quoted


def uv_environment(config_list: str, environ: Mapping[str, str]) -> dict[str, str]:
    """The variables to add for uv. What the user told uv already stays as it is."""
    added: dict[str, str] = {"UV_PYTHON_DOWNLOADS": "never"}
    for name, value in effective(config_list).items():
        uv_name = _UV_NAMES.get(name)
        if uv_name is None or uv_name in environ:
            continue
        added[uv_name] = _SEPARATORS.get(uv_name, " ").join(value.split())
    if added.get("UV_HTTP_TIMEOUT", "0").split(".")[0] == "0":
        added.pop("UV_HTTP_TIMEOUT", None)
    return added
