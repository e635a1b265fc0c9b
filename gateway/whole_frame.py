"""A websocket frame as a server sends it, for who writes to the transport itself: many at once, or in the turn of the
loop in which there is something to say.
"""

TEXT, BINARY = 0x81, 0x82
"""The first byte of a message's only frame (RFC 6455, 5.2)."""


def whole_frame(message: bytes, kind: int = TEXT) -> bytes:
    """A whole message in one frame, unmasked."""
    size = len(message)
    if size < 126:
        return bytes((kind, size)) + message
    if size < 65_536:
        return bytes((kind, 126)) + size.to_bytes(2, "big") + message
    return bytes((kind, 127)) + size.to_bytes(8, "big") + message
