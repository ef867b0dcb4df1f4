"""The machine's pip configuration reaches uv, and a nearer setting wins as in pip."""

from launcher.pip_settings import effective, uv_environment

_LISTED = """global.index-url='https://far.example/packages'
global.cert='/etc/ca.pem'
install.index-url='https://near.example/packages'
:env:.find-links='/opt/wheels /opt/more'
:env:.default-timeout='180'
freeze.index-url='https://not-for-install.example'
"""


def test_a_setting_of_install_counts_over_one_of_global() -> None:
    assert effective(_LISTED)["index-url"] == "https://near.example/packages"


def test_every_setting_has_its_name_in_uv() -> None:
    env = uv_environment(_LISTED, {})
    assert env["UV_DEFAULT_INDEX"] == "https://near.example/packages"
    assert env["SSL_CERT_FILE"] == "/etc/ca.pem"
    assert env["UV_FIND_LINKS"] == "/opt/wheels,/opt/more"
    assert env["UV_HTTP_TIMEOUT"] == "180"


def test_what_the_user_told_uv_stays() -> None:
    env = uv_environment(_LISTED, {"UV_DEFAULT_INDEX": "https://mine.example"})
    assert "UV_DEFAULT_INDEX" not in env
    assert env["UV_FIND_LINKS"]


def test_a_machine_without_configuration_adds_no_index() -> None:
    assert uv_environment("", {}) == {"UV_PYTHON_DOWNLOADS": "never"}
