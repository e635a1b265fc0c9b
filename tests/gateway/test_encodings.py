"""Accept-Encoding, as RFC 9110, 12.5.3 has it."""

import pytest

from gateway.encodings import takes_gzip


@pytest.mark.parametrize(
    ("fields", "taken"),
    [
        ([], False),
        ([""], False),
        (["gzip"], True),
        (["GZip"], True),
        (["x-gzip"], True),
        (["deflate, gzip;q=1.0, *;q=0.5"], True),
        (["br", "gzip"], True),
        (["gzip;q=0.001"], True),
        (["gzip ; Q=0.5"], True),
        (["*"], True),
        (["identity"], False),
        (["gzip;q=0"], False),
        (["gzip;q=0.000, *"], False),
        (["*;q=0"], False),
        (["*;q=0, gzip"], True),
        (["xgzipx"], False),
        (["gzipped, br"], False),
        (["gzip;q=2"], False),
        (["gzip;level=9"], False),
        (["gzip gzip"], False),
        ([",, ,gzip,"], True),
    ],
)
def test_who_takes_gzip(fields: list[str], taken: bool) -> None:
    assert takes_gzip(fields) is taken
