"""The named arguments of a function, as one pydantic model that validates them and describes them as JSON schema.

What comes in: a function's signature, type hints and defaults, and descriptions of its parameters. What goes out:
validated keyword arguments, or one readable line about what is wrong with them. Parameters may have any name, also one
of pydantic's own attributes ("json", "copy", "model_config"). Knows nothing of tools and environments.
"""

from __future__ import annotations

import inspect
import json
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Annotated, Any, NoReturn, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model
from pydantic.errors import PydanticInvalidForJsonSchema, PydanticUserError
from pydantic.json_schema import PydanticJsonSchemaWarning
from pydantic_core import PydanticUndefined

from agentrl.errors import EnvDefinitionError

NOTHING = inspect.Parameter.empty  # the hint of an untyped parameter, the default of a required one
_MAX_FAULTS = 5  # named in one error


class BadArguments(ValueError):
    """The arguments do not fit; the message says where and why."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of a function that can be given by name."""

    name: str
    hint: Any  # a type, or NOTHING
    default: Any  # NOTHING where the parameter is required


def read_parameters(function: Callable[..., Any], owner: str) -> tuple[Parameter, ...]:
    """The parameters of a function (a bound method's without `self`), hints resolved.

    Raises:
        EnvDefinitionError: a parameter cannot be given by name, or a hint names what is not there.
    """
    by_name = inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY
    signature = inspect.signature(function)
    for parameter in signature.parameters.values():
        if parameter.kind not in by_name:
            raise EnvDefinitionError(
                f"{owner}: `{parameter}` cannot be given by name; name every parameter, without * or /"
            )
    hints = _resolve({p.name: p.annotation for p in signature.parameters.values()}, function, owner)
    return tuple(Parameter(p.name, hints[p.name], p.default) for p in signature.parameters.values())


class Arguments:
    """Validates the named arguments of one function.

    Args:
        owner: whose arguments they are, for error messages.
        parameters: as `read_parameters` gives them; an untyped one takes anything.
        descriptions: of some parameters, for the schema.
        any_type: also take hints that are plain classes, checked with isinstance. No JSON schema can be made then.

    Raises:
        EnvDefinitionError: pydantic cannot validate a hint.
    """

    def __init__(
        self,
        owner: str,
        parameters: tuple[Parameter, ...],
        descriptions: Mapping[str, str] | None = None,
        *,
        any_type: bool = False,
    ) -> None:
        self._owner = owner
        self._names = {f"p{index}": parameter.name for index, parameter in enumerate(parameters)}  # field -> name
        config = ConfigDict(extra="forbid", arbitrary_types_allowed=any_type, protected_namespaces=())
        fields = {
            field: _field(parameter, (descriptions or {}).get(parameter.name))
            for field, parameter in zip(self._names, parameters, strict=True)
        }
        try:
            self._model: type[BaseModel] = create_model("Arguments", __config__=config, **fields)  # type: ignore[call-overload]
        except PydanticUserError as error:
            raise EnvDefinitionError(f"{owner}: {_first_line(error)}") from error

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._names.values())

    def validate(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The given arguments, converted to their types. What was not given is left to the function's own default.

        Some families of models write every argument as text. Text that does not fit its type is therefore read as JSON,
        and None as null: "[1, 2]" is a list where a list is wanted, and text where text or anything is wanted.

        Raises:
            BadArguments: something is missing, unknown or of the wrong type.
        """
        try:
            model = self._model.model_validate(dict(given))
        except ValidationError as error:
            try:
                model = self._model.model_validate(_read_texts(given, error))
            except ValidationError:
                raise BadArguments(_explain(error)) from None
        return {self._names[field]: model.__dict__[field] for field in model.model_fields_set}

    def json_schema(self) -> dict[str, Any]:
        """The arguments as a JSON schema object, short: without titles, and with `additionalProperties` left unsaid.

        Raises:
            EnvDefinitionError: a hint has no JSON schema.
        """
        try:
            with warnings.catch_warnings():
                warnings.simplefilter(
                    "ignore", PydanticJsonSchemaWarning
                )  # a default that JSON cannot hold is left out
                schema = self._model.model_json_schema()
        except PydanticInvalidForJsonSchema as error:
            raise EnvDefinitionError(f"{self._owner}: {_first_line(error)}") from error
        short = {"type": "object", "properties": _untitled(schema["properties"] if self._names else {}, names=True)}
        short["required"] = schema.get("required", [])
        if "$defs" in schema:
            short["$defs"] = _untitled(schema["$defs"], names=True)
        return short


def _resolve(annotations: dict[str, Any], function: Callable[..., Any], owner: str) -> dict[str, Any]:
    """Evaluate hints that are strings. The return annotation is left alone: nothing here needs it."""
    given = {name: hint for name, hint in annotations.items() if hint is not NOTHING}
    space = getattr(inspect.unwrap(function), "__globals__", {})
    try:
        hints = get_type_hints(SimpleNamespace(__annotations__=given), globalns=space, include_extras=True)
    except (NameError, AttributeError, TypeError, SyntaxError) as error:
        raise EnvDefinitionError(
            f"{owner}: its type hints cannot be read ({error}); import the types they name at the top of the module"
        ) from error
    return {name: hints.get(name, NOTHING) for name in annotations}


def _field(parameter: Parameter, description: str | None) -> tuple[Any, Any]:
    hint = Any if parameter.hint is NOTHING else parameter.hint
    if description:
        hint = Annotated[hint, Field(description=description)]
    default = PydanticUndefined if parameter.default is NOTHING else parameter.default
    return hint, Field(default, alias=parameter.name)


def _read_texts(given: Mapping[str, Any], error: ValidationError) -> dict[str, Any]:
    """The arguments, those that are faulty and text read as JSON where they can be."""
    out = dict(given)
    for fault in error.errors(include_url=False, include_context=False, include_input=False):
        name = fault["loc"][0] if fault["loc"] else None
        if isinstance(name, str) and isinstance(given.get(name), str):
            text = given[name].strip()
            with suppress(ValueError, RecursionError):
                out[name] = None if text == "None" else json.loads(text, parse_constant=_no_constant)
    return out


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON value")


def _explain(error: ValidationError) -> str:
    faults = error.errors(include_url=False, include_context=False, include_input=False)
    lines = [f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in faults[:_MAX_FAULTS]]
    if len(faults) > _MAX_FAULTS:
        lines.append(f"and {len(faults) - _MAX_FAULTS} more")
    return "; ".join(lines)


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]


def _untitled(schema: Any, *, names: bool = False) -> Any:
    """The schema without pydantic's titles. `names`: the keys of this level are names, not schema words."""
    if isinstance(schema, list):
        return [_untitled(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: value if key in _DATA_WORDS and not names else _untitled(value, names=key == "properties" and not names)
        for key, value in schema.items()
        if names or key != "title"
    }


_DATA_WORDS = ("default", "const", "enum", "examples")  # their values are data, not schemas
