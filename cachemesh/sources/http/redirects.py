"""Which redirects are followed, and what of a request goes along. Pure rules; who sends is not their business.

RFC 9110, section 15.4, says what becomes of the method. That nothing secret
goes to another origin, and no answer from outside leads to what is inside, is
ours: addresses are looked at where they stand in the URL itself. What a name
resolves to is not.
"""

from __future__ import annotations

import socket
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import Final

from msgspec import Struct

REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
SCHEMES: Final = frozenset({"http", "https"})

GOES_ANYWHERE: Final = frozenset({"accept", "accept-encoding", "accept-language", "user-agent"})
"""The headers that another origin gets to see."""
OF_THE_BODY: Final = frozenset(
    {"content-type", "content-length", "content-encoding", "content-language", "transfer-encoding"}
)
"""They go where the body goes."""


TRANSLATED: Final = tuple(map(IPv6Network, ("64:ff9b::/96", "64:ff9b:1::/96", "::ffff:0:0:0/96")))
"""Networks whose addresses end in the IPv4 address that a translator makes of them (RFC 6052, 8215 and 7915)."""


class Place(Struct, frozen=True):
    """An origin (RFC 6454): `port` is None where it is the scheme's own."""

    scheme: str
    host: str
    port: int | None = None


class Hop(Struct, frozen=True):
    """A redirect that is followed: with which method, with the body or without, and whether to another origin."""

    method: str
    keeps_body: bool
    leaves_origin: bool


def hop_of(status: int, method: str, here: Place, there: Place) -> Hop | str:
    """What follows from a redirect with `status` from `here` to `there`; or why it is not followed."""
    if there.scheme not in SCHEMES:
        return "a redirect to another scheme than http and https"
    if here.scheme == "https" and there.scheme == "http":
        return "a redirect from https to http"
    if not there.host:
        return "a redirect to no host"
    refusal = _refusal(here.host, there.host)
    if refusal is not None:
        return refusal
    changed = _method_after(status, method)
    return Hop(changed, changed == method, here != there)


def _method_after(status: int, method: str) -> str:
    """RFC 9110: 303 asks for a GET (15.4.4); after 301 and 302 a POST becomes one (15.4.2, 15.4.3); else it stays."""
    if status == 303:  # noqa: PLR2004 (as it is called)
        return method if method in {"GET", "HEAD"} else "GET"
    return "GET" if status in {301, 302} and method == "POST" else method


def _refusal(here: str, there: str) -> str | None:
    address = address_of(there)
    if address is not None and (address.is_link_local or address.is_unspecified or address.is_multicast):
        return "a redirect to a link-local, unspecified or multicast address"
    return "a redirect from outside to a private address" if is_inside(there) and not is_inside(here) else None


def is_inside(host: str) -> bool:
    """Whether `host` is, by itself, this machine or a private network."""
    name = host.rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):  # RFC 6761, section 6.3.
        return True
    address = address_of(host)
    return address is not None and not address.is_global


def address_of(host: str) -> IPv4Address | IPv6Address | None:
    """The address that `host` is, in whatever way it is written: 127.1 and 0x7f000001 are 127.0.0.1 to a resolver."""
    try:
        address = ip_address(host.strip("[]").partition("%")[0])
    except ValueError:
        try:
            return IPv4Address(socket.inet_aton(host.rstrip(".")))
        except (OSError, ValueError):
            return None
    return _inner(address) or address if isinstance(address, IPv6Address) else address


def _inner(address: IPv6Address) -> IPv4Address | None:
    """The IPv4 address that is reached by `address`, if any is."""
    if any(address in network for network in TRANSLATED):
        return IPv4Address(int(address) & 0xFFFF_FFFF)
    return address.ipv4_mapped or address.sixtofour
