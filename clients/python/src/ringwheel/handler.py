"""A function that tasks are given to: its signature says what a payload has to look like.

A payload that is an object is taken apart into parameters, each converted to its annotation by msgspec (a parameter
without a default has to be there, a field without a parameter is refused). A positional-only parameter is the whole
payload instead, whatever it is. A first parameter that is annotated `Context` gets the task itself.

Refuses, by the handler's name: a generator, whose body nobody would run; a Context that is not the first parameter; an
annotation that can't be resolved, or that msgspec can't convert to.
"""

import functools
import inspect
from collections.abc import Callable
from typing import Any, Generic, ParamSpec, get_args

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
        if not callable(function):
            raise TypeError(f"{name}: expected a function, not a value of type {type(function).__qualname__}")
        if _is(function, inspect.isgeneratorfunction) or _is(function, inspect.isasyncgenfunction):
            raise TypeError(f"{name}: a generator can't be a handler: nobody would take what it yields")
        self.threaded = not _is(function, inspect.iscoroutinefunction)
        """A plain function runs in a thread."""
        self._signature, self.wants_context = _signature_of(function, name)
        parameters = list(self._signature.parameters.values())
        self._whole = len(parameters) == 1 and parameters[0].kind is _POSITIONAL
        _check(name, parameters, whole=self._whole)
        try:
            self._read = _whole_reader(parameters[0]) if self._whole else _fields_reader(name, parameters)
        except TypeError as error:
            raise TypeError(f"{name}: no payload can be converted to its parameters: {error}") from error
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


def name_of(function: Callable[..., Any]) -> str:
    """Its own. Raises TypeError: it has none."""
    name = getattr(function, "__name__", None)
    if not isinstance(name, str):
        kind = type(function).__qualname__
        raise TypeError(f'a {kind} has no name of its own: give it one, as in `app.task("name")(...)`')
    return name


def _is(function: Callable[..., Any], kind: Callable[[Any], bool]) -> bool:
    """Also of an object whose class says how it is called."""
    return kind(function) or kind(type(function).__call__)


def _signature_of(function: Callable[..., Any], name: str) -> tuple[inspect.Signature, bool]:
    """The signature without the context, and whether there was one."""
    try:
        signature = inspect.signature(function, eval_str=True)
    except Exception as error:  # an annotation is any expression
        raise TypeError(f"{name}: its signature can't be read: {error}") from error
    parameters = list(signature.parameters.values())
    wants_context = bool(parameters) and parameters[0].annotation is Context
    rest = parameters[1:] if wants_context else parameters
    for parameter in rest:
        if parameter.annotation is Context or Context in get_args(parameter.annotation):
            raise TypeError(
                f"{name}: {parameter.name!r} is annotated Context: only the first parameter can be, plainly"
            )
    return signature.replace(parameters=rest), wants_context


def _check(name: str, parameters: Parameters, *, whole: bool) -> None:
    if any(parameter.kind in _VARIABLE for parameter in parameters):
        raise TypeError(f"{name}: *args and **kwargs say nothing of the payload; take all of it as `payload, /`")
    if not whole and any(parameter.kind is _POSITIONAL for parameter in parameters):
        raise TypeError(f"{name}: a positional-only parameter is the whole payload, and has to be the only one")


def _whole_reader(parameter: inspect.Parameter) -> Callable[[Delivery], Arguments]:
    wanted = _annotation(parameter)
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
