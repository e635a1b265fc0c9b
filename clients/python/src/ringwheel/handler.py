"""A function that tasks are given to: its signature says what a payload has to look like.

A payload that is an object is taken apart into parameters, each converted to its annotation by msgspec (a parameter
without a default has to be there, a field without a parameter is refused). A positional-only parameter is the whole
payload instead, whatever it is. A first parameter that is annotated `Context` gets the task itself.
"""

import functools
import inspect
from collections.abc import Callable
from typing import Any, Generic, ParamSpec

import msgspec

from ringwheel.context import Context
from ringwheel.draft import Draft
from ringwheel.frames import Delivery

LABEL = "task"
"""The label that names a task's handler."""
P = ParamSpec("P")
Parameters = list[inspect.Parameter]
Arguments = tuple[tuple[Any, ...], dict[str, Any]]

_POSITIONAL = inspect.Parameter.POSITIONAL_ONLY
_KEYWORD = inspect.Parameter.KEYWORD_ONLY
_VARIABLE = inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD
_NO_ARGUMENTS: Arguments = ((), {})


class Handler(Generic[P]):
    """A registered function. Calling it calls the function; `draft` makes a task for it."""

    def __init__(self, function: Callable[..., Any], name: str, queue: str) -> None:
        """Raises TypeError when no payload could be turned into the function's arguments."""
        self.function = function
        self.name = name
        self.queue = queue
        self.threaded = not any(map(inspect.iscoroutinefunction, (function, type(function).__call__)))
        """A plain function runs in a thread."""
        self._signature, self.wants_context = _signature_of(function)
        parameters = list(self._signature.parameters.values())
        self._whole = len(parameters) == 1 and parameters[0].kind is _POSITIONAL
        self._read = _reader_of(name, parameters, whole=self._whole)
        functools.update_wrapper(self, function)

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        """The function itself, as a test calls it."""
        return self.function(*arguments, **named)

    def draft(self, *arguments: P.args, **named: P.kwargs) -> Draft:
        """A task for this handler, to be submitted."""
        bound = self._signature.bind(*arguments, **named).arguments
        payload = next(iter(bound.values()), None) if self._whole else (bound or None)
        return Draft(self.queue, payload, labels={LABEL: self.name})

    def call(self, positional: tuple[Any, ...], named: dict[str, Any]) -> Any:
        """The function, for a thread: what a future can't carry is turned into what it can."""
        try:
            return self.function(*positional, **named)
        except (StopIteration, GeneratorExit) as error:
            raise RuntimeError(f"the handler raised {type(error).__name__}") from error

    def arguments(self, context: Context) -> Arguments:
        """What the function is called with. Raises msgspec's errors: the payload doesn't fit."""
        positional, named = self._read(context.task)
        return ((context, *positional), named) if self.wants_context else (positional, named)


def _signature_of(function: Callable[..., Any]) -> tuple[inspect.Signature, bool]:
    """The signature without the context, and whether there was one."""
    signature = inspect.signature(function, eval_str=True)
    parameters = list(signature.parameters.values())
    wants_context = bool(parameters) and parameters[0].annotation is Context
    return signature.replace(parameters=parameters[1:] if wants_context else parameters), wants_context


def _reader_of(name: str, parameters: Parameters, *, whole: bool) -> Callable[[Delivery], Arguments]:
    if any(parameter.kind in _VARIABLE for parameter in parameters):
        raise TypeError(f"{name}: *args and **kwargs say nothing of the payload; take all of it as `payload, /`")
    if whole:
        return _whole_reader(_annotation(parameters[0]))
    if any(parameter.kind is _POSITIONAL for parameter in parameters):
        raise TypeError(f"{name}: a positional-only parameter is the whole payload, and has to be the only one")
    return _fields_reader(name, parameters)


def _whole_reader(wanted: Any) -> Callable[[Delivery], Arguments]:
    decode = msgspec.json.Decoder(wanted).decode

    def read(task: Delivery) -> Arguments:
        if task.payload_base64 is not None:
            return (msgspec.convert(task.payload_base64, wanted),), {}
        return (decode(task.payload or b"null"),), {}

    return read


def _fields_reader(name: str, parameters: Parameters) -> Callable[[Delivery], Arguments]:
    # Positional ones first, as in the signature: a field without a default may follow one that has one.
    fields = [(one.name, _annotation(one), _default(one)) for one in parameters]
    wanted = msgspec.defstruct(
        name if name.isidentifier() else "Payload", fields, kw_only=True, forbid_unknown_fields=True
    )
    decode = msgspec.json.Decoder(wanted).decode
    named_only = [one.name for one in parameters if one.kind is _KEYWORD]
    astuple, asdict = msgspec.structs.astuple, msgspec.structs.asdict

    def read(task: Delivery) -> Arguments:
        if task.payload_base64 is not None:
            raise msgspec.ValidationError("Expected `object`, got bytes")
        if not fields and not task.payload:
            return _NO_ARGUMENTS
        found = decode(task.payload or b"{}")
        return ((), asdict(found)) if named_only else (astuple(found), {})

    return read


def _annotation(parameter: inspect.Parameter) -> Any:
    return Any if parameter.annotation is inspect.Parameter.empty else parameter.annotation


def _default(parameter: inspect.Parameter) -> Any:
    if parameter.default is inspect.Parameter.empty:
        return msgspec.NODEFAULT
    return msgspec.field(default_factory=lambda: parameter.default)
