"""Which addresses a webhook may reach.

Users choose the URLs, so a webhook must not become a way into the network that ringwheel itself stands in. The check
is made on the numeric address, when the socket for it is made: a name that resolves to something else the next time
(DNS rebinding) or a number in a strange spelling gains nothing. A pooled connection keeps the address it was checked
for.

Promises: what is not a public unicast address is refused unless the configuration allows it; an IPv4 address inside an
IPv6 one (mapped, 6to4, NAT64) is judged as the IPv4 address that it leads to, and every one that some tunnel or
translator might lead to (compatible, translated, Teredo, ISATAP) has to pass as well.
Refuses: loopback, private, shared (100.64.0.0/10), link-local with its metadata services, multicast, unspecified and
reserved addresses (`ranges.py`), and the metadata services that live on public addresses. Whatever is allowed: this
service itself.
"""

import socket
from collections.abc import Iterable
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any

from actors.core.errors import Misconfigured
from gateway.ranges import Address, Network, kind_of

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
        "169.254.170.2",  # AWS, of a container
        "169.254.170.23",  # AWS, of a pod
        "fd00:ec2::23",  # the same over IPv6
        "fd20:ce::254",  # Google Cloud over IPv6
        "100.100.100.200",  # Alibaba Cloud
        "168.63.129.16",  # Azure's host agent, a public address
        "192.0.0.192",  # Oracle Cloud
        "169.254.42.42",  # Scaleway
        "fd00:42::42",  # the same over IPv6
        "169.254.0.23",  # Tencent Cloud
    )
)
"""Services that hand out credentials: allowed only by an entry for that one address, never by a network around it."""

_NAT64 = IPv6Network("64:ff9b::/96")  # RFC 6052
_COMPATIBLE = IPv6Network("::/96")  # RFC 4291, 2.5.5.1
_TRANSLATED = IPv6Network("::ffff:0:0:0/96")  # RFC 2765
_ISATAP = frozenset({0x0000_5EFE, 0x0200_5EFE})  # RFC 5214, 6.1
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
        self._own_ports: frozenset[int] = frozenset()
        self._own: frozenset[tuple[Address, int]] = frozenset()

    def shield(self, listening: Iterable[tuple[str, int]]) -> None:
        """These are this service's own addresses and ports: they are refused, and the ports on all of this machine.

        Names are passed over: they are not what a socket connects to.
        """
        pairs = list(listening)
        self._own_ports = frozenset(port for _, port in pairs)
        self._own = frozenset((address, port) for host, port in pairs for address in _numeric(host))

    def refusal(self, address: str) -> str | None:
        """Why this numeric address may not be reached, or None when it may."""
        return self._why(address)

    def socket(self, info: tuple[Any, ...]) -> socket.socket:
        """A socket for one entry of getaddrinfo (family, type, proto, name, address). Raises Refused."""
        family, kind, proto, _, address = info
        why = self.refusal(address[0])
        if why is None and address[1] in self._own_ports and self._is_own(address[0], address[1]):
            why = "ringwheel itself"
        if why is not None:
            raise Refused(address[0], why)
        return socket.socket(family, kind, proto)

    def _judge(self, text: str) -> str | None:
        for address in _reached(ip_address(text)):
            why = self._judge_one(address)
            if why is not None:
                return why
        return None

    def _judge_one(self, address: Address) -> str | None:
        if address in METADATA:
            return None if address in self._exact else "metadata service"
        if any(address in network for network in self._allowed):
            return None
        return kind_of(address)

    def _is_own(self, text: str, port: int) -> bool:
        return any((address, port) in self._own or _is_here(address) for address in _reached(ip_address(text)))


def _network(text: str) -> Network:
    try:
        return ip_network(text)
    except ValueError as error:
        raise Misconfigured(f"allowed targets: {text!r} is neither a network nor one of {sorted(NAMED)}") from error


def _numeric(host: str) -> tuple[Address, ...]:
    try:
        return _reached(ip_address(host.strip("[]")))
    except ValueError:
        return ()


def _reached(address: Address) -> tuple[Address, ...]:
    """Whom a connection to this address may reach: the IPv4 address that it stands for, else itself without its zone,
    and the IPv4 addresses that it has inside."""
    if isinstance(address, IPv4Address):
        return (address,)
    number = int(address)
    last = IPv4Address(number & 0xFFFF_FFFF)
    inner = address.ipv4_mapped or address.sixtofour or (last if address in _NAT64 else None)
    if inner is not None:
        return (inner,)
    bare = IPv6Address(number)
    if address.teredo is not None:
        return bare, *address.teredo
    if number >> 32 & 0xFFFF_FFFF in _ISATAP or address in _TRANSLATED or (address in _COMPATIBLE and number > 1):
        return bare, last
    return (bare,)


def _is_here(address: Address) -> bool:
    """Whether this machine has the address: whoever connects to it does so from it."""
    if address.is_loopback or address.is_unspecified:
        return True
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((str(address), 9))  # sends nothing
        except OSError:
            return False
        return ip_address(probe.getsockname()[0]) == address
