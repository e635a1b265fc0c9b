"""Webhook targets: what may be pushed where."""

from urllib.parse import urlsplit

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.core.errors import Invalid
from gateway.http_target import MAX_HEADERS, read_target


def read(**target: object) -> None:
    read_target(orjson.dumps(target))


@pytest.mark.parametrize(
    "url",
    [
        "http://a",
        "HTTPS://Example.COM:8443/hook?x=1&y=%20#part",
        "http://localhost:1",
        "http://[::1]:8080/",
        "http://10.0.0.1/",
        "http://1.2.3.4.example/",
        "http://0x7g/",
        "http://3com/",
        "http://xn--bcher-kva.example./",
        "http://under_score.example/a@b:c;d,e'()*!$~[]|{}",
        "http://a?x",
    ],
)
def test_urls_that_are_taken(url: str) -> None:
    assert read_target(orjson.dumps({"url": url})).url == url


@pytest.mark.parametrize(
    "url",
    [
        "",
        "a",
        "//a/",
        "/hook",
        "http:a",
        "http:///a",
        "http://a:",
        "http://a:0/",
        "http://a:123456/",
        "http://.a/",
        "http://a..b/",
        "http://" + "a" * 64,
        "http://[::g]/",
        "http://[1.2.3.4]/",
        "http://127.1/",
        "http://127.0.0.1./",
        "http://1.2.3.256/",
        "http://01.2.3.4/",
        "http://2130706433/",
        "http://0x7f000001/",
        "http://0x7f.0.0.1/",
        "http://a.0x/",
        "http://a.1:80/",
        "http://bücher.example/",
        "http://a@b/",
        "http://a\\@b/",
        "http://%61/",
        "http://a/ b",
        "http://a/\n",
        "http://a\n",
        "http://a/\x7f",
        "http://a/é",
        'http://a/"',
        "javascript:alert(1)",
        "file:///etc/passwd",
    ],
)
def test_urls_that_are_refused(url: str) -> None:
    with pytest.raises(Invalid) as caught:
        read(url=url)
    assert caught.value.pointer == "/http/url"


@given(st.text(st.characters(max_codepoint=255), max_size=30))
def test_no_url_has_a_user_or_a_character_that_ends_its_line(tail: str) -> None:
    url = f"http://{tail}"
    try:
        read(url=url)
    except Invalid:
        return
    parts = urlsplit(url)
    assert parts.hostname
    assert parts.username is None
    assert url.isascii()
    assert url.isprintable()
    assert " " not in url


@given(st.dictionaries(st.text(max_size=8), st.text(max_size=8), max_size=3))
def test_no_header_breaks_out_of_its_line(headers: dict[str, str]) -> None:
    try:
        read(url="http://a", headers=headers)
    except Invalid:
        return
    for name, value in headers.items():
        assert name
        assert not set(name) & set(' \t\r\n:"(),/;<=>?@[\\]{}')
        assert value == value.strip()
        assert all(char == "\t" or " " <= char <= "~" for char in value)


def test_headers_are_bounded() -> None:
    read(url="http://a", headers={f"x-{n}": "" for n in range(MAX_HEADERS)})
    for headers in ({f"x-{n}": "" for n in range(MAX_HEADERS + 1)}, {"x": "v" * 20_000}):
        with pytest.raises(Invalid) as caught:
            read(url="http://a", headers=headers)
        assert caught.value.pointer == "/http/headers"


def test_the_pointer_of_a_header_is_escaped() -> None:
    with pytest.raises(Invalid) as caught:
        read(url="http://a", headers={"a/b~": "x"})
    assert caught.value.pointer == "/http/headers/a~1b~0"
