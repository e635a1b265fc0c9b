"""Which addresses a webhook may reach.

Users choose the URLs, so a webhook must not become a way into the network that ringwheel itself stands in. The check
is made on the numeric address, when the socket for it is made: a name that resolves to something else the next time
(DNS rebinding) or a number in a strange spelling gains nothing. A pooled connection keeps the address it was checked
for.

Promises: what is not a public unicast address is refused unless the configuration allows it; an IPv4 address inside an
IPv6 one (mapped, 6to4, NAT64) is judged as the IPv4 address that it leads to.
Refuses: loopback, private, shared (100.64.0.0/10), link-local with its metadata services, multicast, unspecified and
reserved addresses, and the metadata services that live on public addresses.
"""

import socket
from collections.abc import Iterable
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any

from actors.core.errors import Misconfigured

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

NAMED: dict[str, tuple[str, ...]] = {
    "loopback": ("127.0.0.0/8", "::1/128"),
    "private": ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"),
}
"""Names that `allow` takes besides networks."""

METADATA = frozenset(
    ip_address(text)
    for text in (
        "169.254.169.254",  # nearly every cloud
        "fd00:ec2::254",  # AWS over IPv6
        "100.100.100.200",  # Alibaba Cloud
        "168.63.129.16",  # Azure's host agent, a public address
        "192.0.0.192",  # Oracle Cloud
    )
)
"""Services that hand out credentials: allowed only by an entry for that one address, never by a network around it."""

_NAT64 = IPv6Network("64:ff9b::/96")  # RFC 6052
_KEPT = 1024
"""How many judged addresses are remembered."""


class Refused(OSError):
    """The policy forbids this address. An OSError, because that is what a failed connect may raise.

    Its text is the same for every address: when all addresses of a name are refused, they count as one error.
    """

    def __init__(self, address: str, why: str) -> None:
        super().__init__("target address is not allowed")
        self.address = address
        self.why = why


class TargetPolicy:
    """Decides on addresses; `allow` holds networks ("10.1.0.0/16") and the names in `NAMED`.

    Raises Misconfigured when an entry is neither.
    """

    def __init__(self, allow: Iterable[str] = ()) -> None:
        self._allowed = [_network(text) for entry in allow for text in NAMED.get(entry, (entry,))]
        self._exact = {network.network_address for network in self._allowed if network.num_addresses == 1}
        self._why = lru_cache(_KEPT)(self._judge)

    def refusal(self, address: str) -> str | None:
        """Why this numeric address may not be reached, or None when it may."""
        return self._why(address)

    def socket(self, info: tuple[Any, ...]) -> socket.socket:
        """A socket for one entry of getaddrinfo (family, type, proto, name, address). Raises Refused."""
        family, kind, proto, _, address = info
        why = self.refusal(address[0])
        if why is not None:
            raise Refused(address[0], why)
        return socket.socket(family, kind, proto)

    def _judge(self, text: str) -> str | None:
        address = _inner(ip_address(text))
        if address in METADATA:
            return None if address in self._exact else "metadata service"
        if any(address in network for network in self._allowed):
            return None
        return _kind(address)


def _network(text: str) -> Network:
    try:
        return ip_network(text)
    except ValueError as error:
        raise Misconfigured(f"allowed targets: {text!r} is neither a network nor one of {sorted(NAMED)}") from error


def _inner(address: Address) -> Address:
    """The IPv4 address that an IPv6 one stands for, else the address itself without its zone."""
    if isinstance(address, IPv4Address):
        return address
    inner = address.ipv4_mapped or address.sixtofour
    if inner is None and address in _NAT64:
        inner = IPv4Address(int(address) & 0xFFFF_FFFF)
    return inner or IPv6Address(int(address))


def _kind(address: Address) -> str | None:
    """What keeps an address from being public unicast; None: nothing."""
    if address.is_unspecified:
        return "unspecified"
    if address.is_loopback:
        return "loopback"
    if address.is_link_local:
        return "link-local"
    if address.is_multicast:
        return "multicast"
    if address.is_reserved or (isinstance(address, IPv6Address) and address.is_site_local):
        return "reserved"
    return None if address.is_global else "private"
