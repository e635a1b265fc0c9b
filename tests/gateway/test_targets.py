from ipaddress import IPv4Address, IPv4Network, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.core.errors import Misconfigured
from gateway.targets import METADATA, Refused, TargetPolicy

CLOSED = TargetPolicy()


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "1.1.1.1", "2606:4700:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"]
)
def test_public_addresses_may_be_reached(address: str) -> None:
    assert CLOSED.refusal(address) is None


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("127.0.0.1", "loopback"),
        ("127.255.0.9", "loopback"),
        ("::1", "loopback"),
        ("0.0.0.0", "unspecified"),
        ("::", "unspecified"),
        ("0.1.2.3", "private"),
        ("10.0.0.1", "private"),
        ("172.16.0.1", "private"),
        ("192.168.1.1", "private"),
        ("100.64.0.1", "private"),
        ("198.18.0.1", "private"),
        ("fc00::1", "private"),
        ("fe80::1", "link-local"),
        ("fe80::1%eth0", "link-local"),
        ("169.254.1.1", "link-local"),
        ("224.0.0.1", "multicast"),
        ("ff02::1", "multicast"),
        ("240.0.0.1", "reserved"),
        ("255.255.255.255", "reserved"),
        ("fec0::1", "reserved"),
        ("169.254.169.254", "metadata service"),
        ("168.63.129.16", "metadata service"),
        ("fd00:ec2::254", "metadata service"),
        ("::8.8.8.8", "reserved"),
        ("::ffff:0:8.8.8.8", "reserved"),
        ("64:ff9b:1::8.8.8.8", "reserved"),
        ("2001:0:808:808::1", "private"),
        ("2600::5efe:127.0.0.1", "loopback"),
        ("2600::200:5efe:10.0.0.1", "private"),
        ("192.88.99.1", "reserved"),
        ("3fff::1", "reserved"),
        *((f"192.0.0.{last}", "private") for last in (0, 7, 8, 9, 10, 11, 100, 170, 191, 255)),
    ],
)
def test_other_addresses_are_refused(address: str, why: str) -> None:
    assert CLOSED.refusal(address) == why


ipv4 = st.integers(0, 2**32 - 1).map(IPv4Address)


@given(ipv4)
def test_an_ipv4_address_inside_an_ipv6_one_is_judged_as_itself(address: IPv4Address) -> None:
    alone = CLOSED.refusal(str(address))
    number = int(address)
    for wrapped in (0xFFFF << 32 | number, int(IPv6Address("64:ff9b::")) | number, 0x2002 << 112 | number << 80):
        assert CLOSED.refusal(str(IPv6Address(wrapped))) == alone


@given(ipv4)
def test_what_is_not_global_is_refused(address: IPv4Address) -> None:
    if not address.is_global:
        assert CLOSED.refusal(str(address)) is not None


ipv6 = st.integers(0, 2**128 - 1).map(IPv6Address) | st.integers(0x2000 << 112, (0x4000 << 112) - 1).map(IPv6Address)


@given(ipv6)
def test_what_is_not_global_is_refused_in_ipv6_too(address: IPv6Address) -> None:
    inner = address.ipv4_mapped or address.sixtofour
    if not (inner or address).is_global:
        assert CLOSED.refusal(str(address)) is not None


@given(ipv4, st.integers(0, 32))
def test_an_allowed_network_may_be_reached_and_nothing_else(address: IPv4Address, prefix: int) -> None:
    network = IPv4Network((address, prefix), strict=False)
    policy = TargetPolicy([str(network)])
    if address not in METADATA:
        assert policy.refusal(str(address)) is None
    outside = IPv4Address(int(address) ^ 1 << 31)
    if outside not in network:
        assert policy.refusal(str(outside)) == CLOSED.refusal(str(outside))


def test_a_network_around_a_metadata_service_does_not_allow_it() -> None:
    assert TargetPolicy(["169.254.0.0/16"]).refusal("169.254.169.254") == "metadata service"
    assert TargetPolicy(["169.254.169.254/32"]).refusal("169.254.169.254") is None


def test_names_stand_for_networks() -> None:
    policy = TargetPolicy(["loopback", "private"])
    assert [policy.refusal(address) for address in ("127.0.0.1", "::1", "10.9.8.7", "fd12::1")] == [None] * 4


@pytest.mark.parametrize("entry", ["localhost", "10.0.0.1/8", "", "999.0.0.0/8"])
def test_what_is_no_network_is_refused_at_start(entry: str) -> None:
    with pytest.raises(Misconfigured):
        TargetPolicy([entry])


@pytest.mark.parametrize(
    ("network", "inside", "why"),
    [
        ("2001::/32", "2001:0:7f00:1::1", "loopback"),  # the server
        ("2001::/32", "2001:0:808:808:0:0:80ff:fffe", "loopback"),  # the client
        ("2001::/32", "2001:0:808:808:0:0:f7f7:f7f7", None),
        ("::/96", "::10.0.0.1", "private"),
        ("::ffff:0:0:0/96", "::ffff:0:169.254.169.254", "metadata service"),
        ("2600::/16", "2600::5efe:10.0.0.1", "private"),
        ("2600::/16", "2600::5efe:8.8.8.8", None),
    ],
)
def test_what_a_tunnel_leads_to_has_to_be_allowed_too(network: str, inside: str, why: str | None) -> None:
    assert TargetPolicy([network]).refusal(inside) == why


def test_this_service_is_refused_whatever_is_allowed() -> None:
    policy = TargetPolicy(["loopback", "0.0.0.0/0", "::/0"])
    policy.shield([("0.0.0.0", 7070), ("2600::1", 7443), ("ringwheel.example", 9)])
    own = [("127.0.0.1", 7070), ("127.0.0.9", 7070), ("0.0.0.0", 7070), ("::ffff:127.0.0.1", 7070), ("2600::1", 7443)]
    for address, port in own:
        with pytest.raises(Refused) as caught:
            policy.socket((10 if ":" in address else 2, 1, 6, "", (address, port)))
        assert caught.value.why == "ringwheel itself"
    for address, port in [("127.0.0.1", 7071), ("127.0.0.1", 7444), ("8.8.8.8", 7070), ("2600::2", 7443)]:
        policy.socket((10 if ":" in address else 2, 1, 6, "", (address, port))).close()


def test_no_socket_is_made_for_a_refused_address() -> None:
    with pytest.raises(Refused) as caught:
        CLOSED.socket((2, 1, 6, "", ("10.0.0.1", 80)))
    assert (caught.value.address, caught.value.why) == ("10.0.0.1", "private")
