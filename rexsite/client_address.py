"""Which address a request comes from, where a header may say so and where it may not."""

from collections.abc import Iterable, Sequence
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpRequest

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


def networks(name: str, values: Iterable[str]) -> tuple[Network, ...]:
    """``values`` of the setting ``name``, each an address or a network in CIDR notation."""
    try:
        return tuple(ip_network(value) for value in values)
    except ValueError:
        raise ImproperlyConfigured(
            f"{name} takes addresses and networks such as 10.1.0.0/16 or ::1, "
            "with no bit set behind the network's part."
        ) from None


def client_address(request: HttpRequest) -> str | None:
    """The address by which attempts to sign in are counted; None where the server knows none.

    Whoever sends a request writes its X-Forwarded-For, and each proxy adds whom it heard: so it is
    read from the right, and only for as long as the one before is in REX_TRUSTED_PROXIES. An IPv6
    client is its network of 64 bits, for it has all of those addresses.
    """
    said = request.headers.get("X-Forwarded-For", "").split(",")
    found = address_of(request.META.get("REMOTE_ADDR", ""), said, settings.TRUSTED_PROXIES)
    if isinstance(found, IPv6Address):
        return str(ip_network((found, 64), strict=False).network_address)
    return str(found) if found else None


def address_of(peer: str, said: Sequence[str], trusted: Sequence[Network]) -> Address | None:
    """``peer``, or the last of ``said`` that is not a trusted proxy's own doing."""
    found = _address(peer)
    for each in reversed(said):
        if found is None or not any(found in network for network in trusted):
            break
        # A proxy that says something else than an address is the last that is known.
        before = _address(each)
        if before is None:
            break
        found = before
    return found


def _address(text: str) -> Address | None:
    try:
        address = ip_address(text.strip())
    except ValueError:
        return None
    if isinstance(address, IPv6Address):
        return address.ipv4_mapped or address
    return address
