"""One connection to a target: a letter goes out, its answer comes in, and then the next one may go.

aiohttp made the connection and its parser reads what comes; nothing else stands between a letter and the socket. No
task waits for an answer: its end is a call, in the moment in which it came.

Promises: a letter ends once, with its answer or with what broke it. A line rests only after an answer that is whole,
when nothing is left unsent or unread; else it closes. What comes on a line that nobody asked anything closes it.
"""

import asyncio
import re
from collections.abc import Callable
from typing import Protocol

from aiohttp import ClientConnectionError, ClientOSError, ClientPayloadError, ServerDisconnectedError
from aiohttp.base_protocol import BaseProtocol
from aiohttp.connector import Connection
from aiohttp.http import HttpProcessingError, HttpResponseParser
from aiohttp.streams import EMPTY_PAYLOAD

from gateway.letter import Letter
from gateway.reply import Reply

READ_BYTES = 16 * 1024
"""Reading from a connection pauses at twice this."""
Host = tuple[str, str]
"""Scheme, name and port of a target; and the tenant."""
_BODILESS = frozenset({204, 304})
_HEAD_END = re.compile(rb"\n\r?\n")
"""The parser takes a line without its CR, too."""


class Call(Protocol):
    """Whoever waits for the end of a letter."""

    letter: Letter

    def end(self, result: Reply | Exception) -> None:
        """Called once: the answer, or why there is none."""
        ...

    def forget(self) -> None:
        """Called instead when nobody is to be told."""
        ...


class Line(BaseProtocol):
    """A connection, seen from its owner: it rests (`rests` was called), is busy with one call, or is closed."""

    __slots__ = (
        "_begun",
        "_call",
        "_connection",
        "_last",
        "_lost",
        "_parser_head_only",
        "_reading",
        "_reply",
        "_rests",
        "host",
    )

    def __init__(
        self,
        connection: Connection,
        host: Host,
        rests: Callable[["Line"], None],
        lost: Callable[["Line"], None],
    ) -> None:
        """Takes over an open connection. `rests`: it may be used again; `lost`: it closed."""
        super().__init__(asyncio.get_running_loop())
        self.host = host
        """Whose letters go over it."""
        self._connection: Connection | None = connection
        self._rests = rests
        self._lost = lost
        self._call: Call | None = None
        self._reply: Reply | None = None
        self._last = False
        """It closes after this answer."""
        self._begun = False
        """Something came for this call."""
        self._reading = False
        self._parser_head_only = False
        assert connection.transport is not None
        self.transport = connection.transport
        self.transport.set_protocol(self)

    @property
    def open(self) -> bool:
        """Letters can be written."""
        return self.transport is not None and not self.transport.is_closing()

    def send(self, call: Call) -> None:
        """Write the letter of a call. The line must be open, and rest."""
        letter = call.letter
        self._call = call
        self._begun = False
        head_only = letter.address.head_only
        if self._parser is None or self._parser_head_only is not head_only:
            self._parser_head_only = head_only
            self._parser = HttpResponseParser(
                self,
                self._loop,
                READ_BYTES,
                payload_exception=ClientPayloadError,
                response_with_body=not head_only,
                read_until_eof=True,
                auto_decompress=False,
            )
        assert self.transport is not None
        self.transport.write(letter.data)

    def cut(self, error: Exception) -> None:
        """The letter ends here. An answer whose head came is told of, broken."""
        self._last = True
        self._end(error)

    def drop(self) -> None:
        """Close it; whoever waits for an answer is told nothing."""
        if self._call is not None:
            self._call.forget()
            self._call = None
        self._close()

    # --- what comes

    def data_received(self, data: bytes) -> None:
        """Bytes of an answer (none: the parser goes on with what it has)."""
        if self._call is None or self._parser is None:
            self.drop()
            return
        try:
            messages, self._upgraded, _ = self._parser.feed_data(data)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is not HTTP
            self._fail(error)
            return
        for message, content in messages:
            if 100 <= message.code < 200 and message.code != 101:
                continue  # it announces the answer
            if self._reply is not None:
                self._last = True  # a second answer to one letter
                break
            self._last = message.should_close or self._upgraded or message.code == 101
            if self._parser_head_only or message.code in _BODILESS:
                self._last = self._last or not content.is_eof()
                content = EMPTY_PAYLOAD
            self._reply = Reply(message.code, message.headers, content)
        only, self._begun = b"" if self._begun else data, True
        if self._reply is not None and not self._reading:
            self._read(only, self._reply)

    def connection_lost(self, error: BaseException | None) -> None:
        """The target closed, or the network did."""
        super().connection_lost(error)
        if self._call is not None and self._reply is not None:
            self._read_rest(self._reply)
        elif self._call is not None:
            self.cut(_as_lost(error))
        self._leave()

    def _read(self, only: bytes, reply: Reply) -> None:
        """`only`: all that ever came for this call, when it came at once."""
        call = self._call
        self._reading = True  # to make room may bring more, in here
        try:
            whole = reply.read()
        finally:
            self._reading = False
        if not whole or self._call is not call:
            return
        if reply.body is None or not _is_all(only, reply.body):
            # Only of an answer that came in one piece it is plain that the parser has no part of another one.
            self._parser = None
        self._end(reply)

    def _read_rest(self, reply: Reply) -> None:
        """The connection ended in a body: that may be the body's end."""
        assert self._parser is not None
        try:
            self._parser.feed_eof()
        except Exception:  # noqa: BLE001 - what it says of a body is that its end is missing
            self.cut(ClientPayloadError())
            return
        self._read(b"", reply)
        if self._call is not None:
            self.cut(ClientPayloadError())

    def _fail(self, error: Exception) -> None:
        if self._reply is not None:
            self.cut(ClientPayloadError())
        else:
            self.cut(error if isinstance(error, HttpProcessingError) else HttpProcessingError())

    # --- the end

    def _end(self, result: Reply | Exception) -> None:
        call, self._call = self._call, None
        reply, self._reply = self._reply, None
        assert call is not None
        if reply is not None and isinstance(result, Exception):
            reply.broken, reply.body = result, None
            result = reply
        if self._last or reply is None or not reply.whole or self._unsent:
            self._close()
        else:
            self._rests(self)
        call.end(result)

    @property
    def _unsent(self) -> bool:
        return self.transport is None or self.transport.get_write_buffer_size() > 0

    def _close(self) -> None:
        if self.transport is not None:
            # To close would mean to send the rest first, for as long as the target does not read; and over TLS, where
            # nobody says how much that is, to wait for the target's farewell besides.
            self.transport.abort()
        self._leave()

    def _leave(self) -> None:
        if self._connection is not None:
            connection, self._connection = self._connection, None
            connection.close()
            self._lost(self)


def _is_all(data: bytes, body: bytes) -> bool:
    """Whether this is a head, that body as it is, and nothing else."""
    end = _HEAD_END.search(data)
    return end is not None and end.end() + len(body) == len(data)


def _as_lost(error: BaseException | None) -> Exception:
    if error is None:
        return ServerDisconnectedError()
    return ClientOSError(*error.args) if isinstance(error, OSError) else ClientConnectionError(str(error))
