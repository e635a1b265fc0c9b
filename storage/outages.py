"""Which errors of asyncpg mean that the database is away, busy or in trouble, as against wrong data or a wrong program.

An outage becomes `Unavailable`: the outcome of what was sent is unknown. A fault of the data (SQLSTATE classes 22 and
23, or a value that could not even be encoded) stays as it is, for the caller to pin on a row. Anything else is a bug
and surfaces as such.
"""

import asyncpg

from actors.core.errors import Misconfigured, Unavailable

_OUTAGE_CLASSES = {"08", "53", "57", "58"}
"""Connection exceptions; insufficient resources; operator intervention (also time-outs); system errors."""
_OUTAGE_STATES = {"25006", "25P03", "25P04", "40001", "40P01", "55P03"}
"""Read-only (no longer a primary); idle or transaction time-out; serialization failure; deadlock; lock time-out."""
_FATAL_STATES = {"25006", "25P03", "25P04", "57P01", "57P02", "57P03", "57P05"}
"""The session is over, or of no more use."""
_REFUSED_CLASSES = {"28", "3D"}
"""Wrong user or password; no such database."""
_DATA_CLASSES = {"22", "23"}
_BROKEN = (OSError, asyncpg.InterfaceError, asyncpg.InternalClientError)
"""asyncpg's own word for a connection that ended; the last one when it ends while a statement is about to be sent."""


def is_data_fault(error: BaseException) -> bool:
    """Whether the values of some row are to blame: refused by the server, or by asyncpg's encoders."""
    if isinstance(error, asyncpg.PostgresError):
        return (error.sqlstate or "")[:2] in _DATA_CLASSES
    return isinstance(error, ValueError | OverflowError)


def kind_of(error: BaseException) -> str:
    """The fault by its kind alone: what the server said may quote the values."""
    return type(error).__name__


def is_outage(error: BaseException) -> bool:
    """Whether `error` says that the database could not do it now."""
    if isinstance(error, asyncpg.PostgresError):
        state = error.sqlstate or ""
        return state[:2] in _OUTAGE_CLASSES or state in _OUTAGE_STATES
    return isinstance(error, _BROKEN) and not is_data_fault(error)


def keeps_session(error: BaseException) -> bool:
    """Whether the connection may be used again after `error` came out of a statement."""
    if isinstance(error, asyncpg.PostgresError):
        return (error.sqlstate or "")[:2] != "08" and error.sqlstate not in _FATAL_STATES
    if is_data_fault(error):
        return True
    # Cancelled half-way (no Exception), timed out or broken: what the server will still send is unknown.
    return isinstance(error, Exception) and not isinstance(error, _BROKEN)


def as_unavailable(error: BaseException) -> Unavailable:
    """`error` in the service's own words."""
    if isinstance(error, TimeoutError):
        return Unavailable("the database did not answer in time")
    return Unavailable(f"the database can't do this now: {type(error).__name__}: {error}")


def as_refusal(error: BaseException) -> Misconfigured | Unavailable:
    """Why a connection could not be made: by the settings, or by an outage."""
    if isinstance(error, asyncpg.PostgresError) and (error.sqlstate or "")[:2] in _REFUSED_CLASSES:
        return Misconfigured(f"the database refuses this DSN: {error}")
    if isinstance(error, ValueError):
        return Misconfigured(f"the DSN can't be used: {error}")
    return as_unavailable(error)
