"""Ranges of addresses that are set aside: a table of our own, from the IANA registries of special-purpose addresses.

https://www.iana.org/assignments/iana-ipv4-special-registry and .../iana-ipv6-special-registry, with multicast and what
never was given out beside them. `ipaddress` has such tables too, but which ranges it knows depends on the patch release
of Python, and whom a webhook may reach must not.

Promises: nothing is asked of `ipaddress` but whether an address lies in a network. Of ranges in ranges the first that
holds an address says what it is.
Refuses, more strictly than the registries: anycast addresses of protocols inside 192.0.0.0/24 and 2001::/23 (PCP, TURN,
SRP), which lead to the nearest box of the network that asks. AS112 and AMT outside of those (192.31.196.0/24,
192.52.193.0/24, 192.175.48.0/24, 2620:4f:8000::/48) are public, and stay so.
"""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

# network, what it is called in a refusal, its name, where it is set aside
_TABLE: tuple[tuple[str, str, str, str], ...] = (
    ("0.0.0.0/32", "unspecified", "this host on this network", "RFC 1122"),
    ("0.0.0.0/8", "private", "this network", "RFC 791"),
    ("10.0.0.0/8", "private", "private use", "RFC 1918"),
    ("100.64.0.0/10", "private", "shared address space", "RFC 6598"),
    ("127.0.0.0/8", "loopback", "loopback", "RFC 1122"),
    ("169.254.0.0/16", "link-local", "link local", "RFC 3927"),
    ("172.16.0.0/12", "private", "private use", "RFC 1918"),
    ("192.0.0.0/29", "private", "IPv4 service continuity (DS-Lite)", "RFC 7335"),
    ("192.0.0.8/32", "private", "IPv4 dummy address", "RFC 7600"),
    ("192.0.0.9/32", "private", "Port Control Protocol anycast", "RFC 7723"),
    ("192.0.0.10/32", "private", "TURN anycast", "RFC 8155"),
    ("192.0.0.170/31", "private", "NAT64/DNS64 discovery", "RFC 8880, RFC 7050"),
    ("192.0.0.0/24", "private", "IETF protocol assignments", "RFC 6890"),
    ("192.0.2.0/24", "private", "documentation (TEST-NET-1)", "RFC 5737"),
    ("192.88.99.0/24", "reserved", "6to4 relay anycast, deprecated; 6a44", "RFC 7526, RFC 6751"),
    ("192.168.0.0/16", "private", "private use", "RFC 1918"),
    ("198.18.0.0/15", "private", "benchmarking", "RFC 2544"),
    ("198.51.100.0/24", "private", "documentation (TEST-NET-2)", "RFC 5737"),
    ("203.0.113.0/24", "private", "documentation (TEST-NET-3)", "RFC 5737"),
    ("224.0.0.0/4", "multicast", "multicast", "RFC 5771"),
    ("255.255.255.255/32", "reserved", "limited broadcast", "RFC 8190, RFC 919"),
    ("240.0.0.0/4", "reserved", "reserved", "RFC 1112"),
    ("::/128", "unspecified", "unspecified", "RFC 4291"),
    ("::1/128", "loopback", "loopback", "RFC 4291"),
    ("::ffff:0:0/96", "reserved", "IPv4-mapped", "RFC 4291"),
    ("64:ff9b:1::/48", "reserved", "IPv4-IPv6 translation, local use", "RFC 8215"),
    ("100::/64", "private", "discard only", "RFC 6666"),
    ("100:0:0:1::/64", "reserved", "dummy prefix", "RFC 9780"),
    ("2001::/32", "private", "Teredo", "RFC 4380, RFC 8190"),
    ("2001:1::1/128", "private", "Port Control Protocol anycast", "RFC 7723"),
    ("2001:1::2/128", "private", "TURN anycast", "RFC 8155"),
    ("2001:1::3/128", "private", "DNS-SD SRP anycast", "RFC 9665"),
    ("2001:2::/48", "private", "benchmarking", "RFC 5180"),
    ("2001:3::/32", "private", "AMT", "RFC 7450"),
    ("2001:4:112::/48", "private", "AS112-v6", "RFC 7535"),
    ("2001:10::/28", "private", "ORCHID, deprecated", "RFC 4843"),
    ("2001:20::/28", "private", "ORCHIDv2", "RFC 7343"),
    ("2001:30::/28", "private", "drone remote ID entity tags", "RFC 9374"),
    ("2001::/23", "private", "IETF protocol assignments", "RFC 2928"),
    ("2001:db8::/32", "private", "documentation", "RFC 3849"),
    ("3fff::/20", "reserved", "documentation", "RFC 9637"),
    ("5f00::/16", "reserved", "segment routing (SRv6) SIDs", "RFC 9602"),
    ("fc00::/7", "private", "unique local", "RFC 4193"),
    ("fe80::/10", "link-local", "link-local unicast", "RFC 4291"),
    ("fec0::/10", "reserved", "site-local unicast, deprecated", "RFC 3879"),
    ("ff00::/8", "multicast", "multicast", "RFC 4291"),
)

SPECIAL: tuple[tuple[Network, str], ...] = tuple((ip_network(text), kind) for text, kind, _, _ in _TABLE)
"""Network and what it is called."""

UNICAST = IPv6Network("2000::/3")
"""All that was ever given out as global unicast."""


def kind_of(address: Address) -> str | None:
    """What keeps an address from being public unicast; None: nothing."""
    for network, kind in SPECIAL:
        if address in network:
            return kind
    return "reserved" if address.version == 6 and address not in UNICAST else None
