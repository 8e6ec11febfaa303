"""Tools: functions that a policy may call.

What comes in: a function with type hints and a Google docstring, and arguments that a model wrote. What goes out: an
OpenAI function schema, and for each call a text for the model. A wrong call, an exception and a missed deadline are
texts as well; only agentrl's own errors (broken machinery, a user's mistake) are raised. Knows nothing of episodes.
"""

from __future__ import annotations

import asyncio
import inspect
import math
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from types import MethodType
from typing import Any, TypeVar, overload

import docstring_parser

from agentrl.env.arguments import NOTHING, Arguments, BadArguments, read_parameters
from agentrl.env.calling import invoke, mark, read_mark
from agentrl.env.text import as_text, clean, shorten
from agentrl.errors import AgentRLError, EnvDefinitionError, described

F = TypeVar("F", bound=Callable[..., Any])

MARK = "tool"
NO_TOOL = ("malformed", "unknown_tool")  # errors of calls that name no tool
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_MIN_RESULT_CHARS = 100  # the note about what was left out must fit


@dataclass(frozen=True, slots=True)
class ToolOptions:
    """What `@tool` says about a function."""

    name: str | None = None  # None: the function's own
    deadline_s: float = 10.0
    max_result_chars: int = 8000


@dataclass(frozen=True, slots=True)
class ToolResult:
    """A call's answer. `error` is the kind of failure, or None.

    Kinds: "malformed" (the call's text could not be read), "unknown_tool", "bad_arguments", "timeout", "exception".
    """

    content: str
    error: str | None = None
    seconds: float = field(default=0.0, compare=False)  # from the call to the answer


@overload
def tool(function: F, /) -> F: ...
@overload
def tool(*, name: str | None = None, deadline_s: float = 10.0, max_result_chars: int = 8000) -> Callable[[F], F]: ...
def tool(
    function: F | None = None,
    /,
    *,
    name: str | None = None,
    deadline_s: float = 10.0,
    max_result_chars: int = 8000,
) -> F | Callable[[F], F]:
    """Mark a method or function as a tool; it stays an ordinary function.

    Args:
        name: what the model calls it; the function's own name if None.
        deadline_s: seconds after which a call is answered with an error. An `async def` tool is cancelled then; the
            thread of a plain `def` tool is left behind.
        max_result_chars: longer results keep their head and tail.

    Raises:
        EnvDefinitionError: an option is out of range, or it does not stand above a function.
    """
    if not (math.isfinite(deadline_s) and deadline_s > 0):
        raise EnvDefinitionError(f"@tool: deadline_s is a positive number of seconds, got {deadline_s!r}")
    if max_result_chars < _MIN_RESULT_CHARS:
        raise EnvDefinitionError(f"@tool: max_result_chars is at least {_MIN_RESULT_CHARS}, got {max_result_chars!r}")
    options = ToolOptions(name, deadline_s, max_result_chars)

    def decorate(marked_function: F) -> F:
        mark(marked_function, MARK, options)
        return marked_function

    return decorate if function is None else decorate(function)


@dataclass(frozen=True, slots=True)
class Tool:
    """A function ready to be called by a policy. `schema` is its OpenAI function schema."""

    name: str
    description: str
    schema: Mapping[str, Any]
    function: Callable[..., Any]
    arguments: Arguments
    deadline_s: float
    max_result_chars: int

    @classmethod
    def of(cls, function: Callable[..., Any]) -> Tool:
        """The tool that a function or bound method makes, marked with `@tool` or not.

        Raises:
            EnvDefinitionError: a parameter has no type hint, or one that JSON cannot carry.
        """
        if isinstance(function, MethodType):
            definition = _define(function.__func__, method=True)
        else:
            definition = _define(function, method=False)
        return cls(
            name=definition.name,
            description=definition.description,
            schema=definition.schema,
            function=function,
            arguments=definition.arguments,
            deadline_s=definition.options.deadline_s,
            max_result_chars=definition.options.max_result_chars,
        )

    async def call(self, arguments: Mapping[str, Any]) -> ToolResult:
        """Validate the arguments and call the function within its deadline.

        Raises:
            AgentRLError: the function raised one (ToolFailure, SandboxFailure, ...): the fault is not the model's.
        """
        began = time.perf_counter()
        content, error = await self._call(arguments)
        return ToolResult(content, error, time.perf_counter() - began)

    async def _call(self, arguments: Mapping[str, Any]) -> tuple[str, str | None]:
        """The answer's text, and the kind of error."""
        deadline = asyncio.timeout(self.deadline_s)
        try:
            named = self.arguments.validate(arguments)
            async with deadline:
                value = await invoke(self.function, **named)
            return as_text(value, self.max_result_chars), None
        except AgentRLError:
            raise
        except BadArguments as error:
            return self._failed("bad_arguments", f"bad arguments for {self.name}: {error}")
        except asyncio.CancelledError as error:
            if _being_cancelled():
                raise
            return self._failed("exception", described(error))
        except (Exception, SystemExit) as error:  # the boundary: what a tool raises is an answer to the model
            if isinstance(error, TimeoutError) and deadline.expired():
                return self._failed("timeout", f"{self.name} did not answer within {self.deadline_s:g} s")
            return self._failed("exception", described(error))

    def _failed(self, kind: str, message: str) -> tuple[str, str]:
        return shorten(clean(f"Error: {message}"), self.max_result_chars), kind


@dataclass(frozen=True, slots=True)
class _Definition:
    """What is the same for every object a tool method is bound to."""

    name: str
    description: str
    schema: Mapping[str, Any]
    arguments: Arguments
    options: ToolOptions


@lru_cache(maxsize=1024)
def _define(function: Callable[..., Any], method: bool) -> _Definition:
    """Read a function's name, docstring and parameters; of a method's parameters, the first is left out."""
    options: ToolOptions = read_mark(function, MARK) or ToolOptions()
    own_name = getattr(function, "__qualname__", repr(function))
    owner = f"tool {own_name}"
    parameters = read_parameters(function, owner)[1 if method else 0 :]
    for parameter in parameters:
        if parameter.hint is NOTHING:
            raise EnvDefinitionError(
                f"{owner}: parameter {parameter.name!r} has no type hint; write `{parameter.name}: str` (or int, "
                "float, bool, list[str], ...): the model is told this type and its arguments are checked against it"
            )
    description, of_parameters = _read_docstring(function, owner)
    if strangers := of_parameters.keys() - {parameter.name for parameter in parameters}:
        raise EnvDefinitionError(
            f"{owner}: its docstring describes {', '.join(sorted(strangers))}, which is no parameter; the parameters "
            f"are {', '.join(parameter.name for parameter in parameters) or 'none'}"
        )
    name = options.name or own_name.rpartition(".")[2]
    if not _NAME.fullmatch(name):
        raise EnvDefinitionError(
            f"{owner}: {name!r} cannot be a tool's name; give @tool(name=...) of letters, digits, _ and -, at most 64"
        )
    arguments = Arguments(owner, parameters, of_parameters)
    body = {"name": name, "description": description, "parameters": arguments.json_schema()}
    return _Definition(name, description, {"type": "function", "function": body}, arguments, options)


def _read_docstring(function: Callable[..., Any], owner: str) -> tuple[str, dict[str, str]]:
    """A Google docstring's description, and those of the parameters under "Args:"."""
    try:
        parsed = docstring_parser.parse(inspect.getdoc(function) or "", style=docstring_parser.DocstringStyle.GOOGLE)
    except docstring_parser.ParseError as error:
        raise EnvDefinitionError(f"{owner}: its docstring cannot be read as a Google docstring: {error}") from error
    parts = [part for part in (parsed.short_description, parsed.long_description) if part]
    arguments = {item.arg_name: " ".join((item.description or "").split()) for item in parsed.params}
    return "\n".join(parts), {name: text for name, text in arguments.items() if text}


def _being_cancelled() -> bool:
    """True where the running task was asked to stop, False where a tool raised CancelledError by itself."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
