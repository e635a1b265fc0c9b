"""Nouns to bytes and back, versioned: one format for the `spec` column and for peers.

A stored spec is JSON with its version first (`{"v":1,...}`), defaults left out. Decoding is interned: tasks of one
kind share one `Spec` object, so a million waiting tasks of one webhook cost one spec.
Refuses: a version that this program does not know.
"""

import msgspec

from actors.core.errors import Invalid
from actors.core.spec import Spec

VERSION = 1
INTERNED = 4096
"""Bound of the intern table; it is emptied when full."""

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Spec)
_PREFIX = b'{"v":1'
_STARTS = (_PREFIX + b",", _PREFIX + b"}")
EMPTY = _PREFIX + b"}"


class SpecCodec:
    """Encodes and decodes specs, with an intern table of at most `INTERNED` entries."""

    def __init__(self) -> None:
        self._specs: dict[bytes, Spec] = {}

    def encode(self, spec: Spec) -> bytes:
        """The stored form of `spec`."""
        body = _encoder.encode(spec)
        return EMPTY if body == b"{}" else _PREFIX + b"," + body[1:]

    def decode(self, data: bytes) -> Spec:
        """The spec of its stored form; equal bytes give the same object. Raises Invalid when unreadable."""
        spec = self._specs.get(data)
        if spec is None:
            spec = self._specs[data] = self._read(data)
        return spec

    def intern(self, spec: Spec) -> tuple[Spec, bytes]:
        """The shared twin of `spec` and its stored form."""
        data = self.encode(spec)
        known = self._specs.get(data)
        if known is None:
            self._room()
            known = self._specs[data] = spec
        return known, data

    def _room(self) -> None:
        if len(self._specs) >= INTERNED:
            self._specs.clear()

    def _read(self, data: bytes) -> Spec:
        if not data.startswith(_STARTS):
            raise Invalid(f"stored spec has a version that this program does not know: {data[:16]!r}")
        self._room()
        try:
            return _decoder.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise Invalid(f"stored spec is not readable: {error}") from error
