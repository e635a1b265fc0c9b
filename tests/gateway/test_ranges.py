"""The table of special ranges: complete against the registries as they were read, and all that the policy goes by."""

import ipaddress
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.ranges import SPECIAL, UNICAST, Network, kind_of
from gateway.targets import METADATA, TargetPolicy

REGISTRIES = (
    "0.0.0.0/8 0.0.0.0/32 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16 172.16.0.0/12 192.0.0.0/24 192.0.0.0/29 "
    "192.0.0.8/32 192.0.0.170/32 192.0.0.171/32 192.0.2.0/24 192.88.99.0/24 192.88.99.2/32 192.168.0.0/16 "
    "198.18.0.0/15 198.51.100.0/24 203.0.113.0/24 240.0.0.0/4 255.255.255.255/32 "
    "::1/128 ::/128 ::ffff:0:0/96 64:ff9b:1::/48 100::/64 100:0:0:1::/64 2001::/23 2001::/32 2001:2::/48 2001:10::/28 "
    "2001:db8::/32 3fff::/20 5f00::/16 fc00::/7 fe80::/10"
)
"""What IANA lists as not globally reachable, or not in all of it."""
JUDGED_INSIDE = (ip_network("::ffff:0:0/96"), ip_network("64:ff9b::/96"), ip_network("2002::/16"))
"""Of these the IPv4 address inside is judged (`test_targets.py`)."""
CLOSED = TargetPolicy()


@st.composite
def inside(draw: st.DrawFn) -> tuple[str, str]:
    """An address of the table, its ends often, and what it is called."""
    network, kind = draw(st.sampled_from(SPECIAL))
    last = network.num_addresses - 1
    place = draw(st.sampled_from([0, last]) | st.integers(0, last))
    return str(network[place]), kind


@given(inside())
def test_no_address_of_the_table_may_be_reached(found: tuple[str, str]) -> None:
    text, _ = found
    address = ip_address(text)
    if not any(address in network for network in JUDGED_INSIDE):
        kinds = {kind for network, kind in SPECIAL if address in network} | {"metadata service"}
        assert CLOSED.refusal(text) in kinds


@given(st.integers(0, 2**32 - 1).map(IPv4Address) | st.integers(int(UNICAST[0]), int(UNICAST[-1])).map(IPv6Address))
def test_an_address_outside_of_the_table_may_be_reached(address: IPv4Address | IPv6Address) -> None:
    if not any(address in network for network, _ in SPECIAL) and address not in METADATA:
        assert kind_of(address) is None
        if address.version == 4:
            assert CLOSED.refusal(str(address)) is None


@pytest.mark.parametrize("text", REGISTRIES.split())
def test_every_range_of_the_registries_is_in_the_table(text: str) -> None:
    network = ip_network(text)
    assert any(_holds(known, network) for known, _ in SPECIAL)


def _holds(known: Network, network: Network) -> bool:
    return known.version == network.version and network[0] in known and network[-1] in known


def test_the_first_range_of_several_is_the_narrowest() -> None:
    for place, (network, _) in enumerate(SPECIAL):
        assert not any(_holds(before, network) for before, _ in SPECIAL[:place]), network


def test_the_release_of_python_has_no_say(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_say(_: object) -> bool:
        raise AssertionError

    for kind in (ipaddress.IPv4Address, ipaddress.IPv6Address):
        for name in ("global", "private", "reserved", "loopback", "link_local", "multicast", "unspecified"):
            monkeypatch.setattr(kind, f"is_{name}", property(no_say))
    policy = TargetPolicy()
    assert policy.refusal("8.8.8.8") is None
    assert policy.refusal("2606:4700:4700::1111") is None
    assert [policy.refusal(text) for text in ("10.0.0.1", "192.0.0.191", "fe80::1", "::1", "4000::1")] == [
        "private",
        "private",
        "link-local",
        "loopback",
        "reserved",
    ]
