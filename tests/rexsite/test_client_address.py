"""Where a request comes from: a header says so only where a proxy we named wrote it."""

from ipaddress import ip_network

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.test import RequestFactory, override_settings

from rexsite.client_address import client_address, networks

PROXIES = (ip_network("10.0.0.0/8"), ip_network("fd00::/8"))


def seen(peer: str, forwarded: str | None = None) -> str | None:
    headers = {} if forwarded is None else {"X-Forwarded-For": forwarded}
    return client_address(RequestFactory().get("/", headers=headers, REMOTE_ADDR=peer))


@pytest.mark.parametrize("forwarded", ["203.0.113.9", "127.0.0.1", "203.0.113.9, 10.0.0.1", "x"])
def test_a_header_is_believed_of_nobody_where_no_proxy_is_named(forwarded: str) -> None:
    assert seen("198.51.100.7", forwarded) == "198.51.100.7"


@override_settings(TRUSTED_PROXIES=PROXIES)
@pytest.mark.parametrize(
    ("peer", "forwarded", "address"),
    [
        ("198.51.100.7", "203.0.113.9", "198.51.100.7"),
        ("10.0.0.1", "203.0.113.9", "203.0.113.9"),
        ("10.0.0.1", "1.2.3.4, 203.0.113.9", "203.0.113.9"),
        ("10.0.0.1", "1.2.3.4, 203.0.113.9, 10.0.0.2", "203.0.113.9"),
        ("10.0.0.1", "10.0.0.3,10.0.0.2", "10.0.0.3"),
        ("10.0.0.1", "203.0.113.9, unknown", "10.0.0.1"),
        ("10.0.0.1", "203.0.113.9:1234", "10.0.0.1"),
        ("10.0.0.1", "", "10.0.0.1"),
        ("10.0.0.1", None, "10.0.0.1"),
        ("::ffff:10.0.0.1", "203.0.113.9", "203.0.113.9"),
        ("fd00::1", "2001:db8:1:2:3::4", "2001:db8:1:2::"),
    ],
)
def test_the_last_address_that_no_named_proxy_has_is_the_clients(
    peer: str, forwarded: str | None, address: str
) -> None:
    assert seen(peer, forwarded) == address


def test_an_ipv6_client_is_its_network_and_a_socket_file_is_nobody() -> None:
    assert seen("2001:db8::1") == seen("2001:db8::ffff:1") == "2001:db8::"
    assert seen("2001:db8:0:1::1") == "2001:db8:0:1::"
    assert seen("") is None


def test_a_proxy_that_is_no_network_stops_the_start_in_words() -> None:
    assert networks("REX_TRUSTED_PROXIES", ["10.1.0.0/16", "::1"])
    for wrong in ("proxy", "10.1.0.1/16", "10.1.0.0/33", "*"):
        with pytest.raises(ImproperlyConfigured, match="REX_TRUSTED_PROXIES takes"):
            networks("REX_TRUSTED_PROXIES", [wrong])
