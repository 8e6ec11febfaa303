"""What travels between client and server, as JSON: work to do and what it came to. Bytes are Base64.

In and out: plain values. The server trusts nothing of a request, the client nothing of an answer: what does not fit
raises ValueError with what is wrong.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from ..inputs import as_bytes, check_name
from ..limits import Limits
from ..result import CellResult, RunResult, Status

VERBS = ("run", "execute", "call")
_STATUSES: tuple[Status, ...] = ("ok", "error", "timeout", "memory", "output_limit", "signal", "infra_error")
_LONGEST_S = 24 * 3600.0


@dataclass(frozen=True)
class Work:
    """One request. `arguments` are those of the pool's method `verb`. `deadline_s` counts from its receipt."""

    verb: str
    arguments: dict[str, Any]
    limits: Limits
    deadline_s: float


def encode_work(verb: str, arguments: Mapping[str, Any], limits: Limits) -> dict[str, Any]:
    """All but the deadline, which is another one at each attempt."""
    body = {name: value for name, value in arguments.items() if value is not None}
    if "stdin" in body:
        body["stdin"] = _packed(body["stdin"])
    if "files" in body:
        body["files"] = {check_name(name): _packed(content) for name, content in body["files"].items()}
    return {**body, "verb": verb, "limits": asdict(limits)}


def decode_work(verb: str, data: bytes) -> Work:
    """Raises ValueError for all that is not what `encode_work` makes."""
    body = _object(_parsed(data), "the body")
    wanted = {"code": str, "function": str, "command": list, "argv": list, "args": list, "kwargs": dict}
    takes = {
        "run": ("code", "argv", "stdin", "files", "collect_files"),
        "execute": ("command", "stdin", "files", "collect_files"),
        "call": ("code", "function", "args", "kwargs", "files"),
    }[verb]
    if strangers := body.keys() - {*takes, "verb", "limits", "deadline_s"}:
        raise ValueError(f"{sorted(strangers)[0]!r} is nothing that {verb} takes; it takes {', '.join(takes)}")
    if body.get("verb") != verb:
        raise ValueError(f"verb is {body.get('verb')!r}, and the path says {verb!r}")
    if missing := [name for name in takes if name in ("code", "function", "command") and name not in body]:
        raise ValueError(f"{missing[0]!r} is missing")
    for name in takes:
        if name in body and name in wanted and not isinstance(body[name], wanted[name]):
            raise ValueError(f"{name!r} is no {wanted[name].__name__}")
    arguments = {name: body[name] for name in takes if name in body}
    for name in ("command", "argv", "collect_files"):
        _strings(arguments.get(name, []), name)
    if "stdin" in body:
        arguments["stdin"] = _unpacked(body["stdin"], "stdin")
    if "files" in body:
        files = _object(body["files"], "files")
        arguments["files"] = {check_name(name): _unpacked(content, name) for name, content in files.items()}
    for name in arguments.get("collect_files", []):
        check_name(name)
    if verb == "execute" and not arguments["command"]:
        raise ValueError("the command is empty: give the program's name and its arguments")
    return Work(verb, arguments, _limits(body.get("limits", {})), _number(body.get("deadline_s"), "deadline_s"))


@dataclass(frozen=True)
class Opening:
    """A session that is asked for."""

    files: dict[str, bytes]
    limits: Limits
    idle_s: float


def encode_opening(files: Mapping[str, str | bytes], limits: Limits, idle_s: float) -> bytes:
    packed = {check_name(name): _packed(content) for name, content in files.items()}
    return json.dumps({"files": packed, "limits": asdict(limits), "idle_s": idle_s}).encode()


def decode_opening(data: bytes) -> Opening:
    """Raises ValueError for all that is not what `encode_opening` makes."""
    body = _object(_parsed(data), "the body")
    if body.keys() != {"files", "limits", "idle_s"}:
        raise ValueError("a session takes files, limits and idle_s")
    files = {check_name(n): _unpacked(c, n) for n, c in _object(body["files"], "files").items()}
    return Opening(files, _limits(body["limits"]), _number(body["idle_s"], "idle_s"))


def encode_dialogue(code: str, limits: Limits) -> bytes:
    return json.dumps({"code": code, "limits": asdict(limits)}).encode()


def decode_dialogue(data: bytes) -> tuple[str, Limits]:
    """(program text, limits). Raises ValueError for all that is not what `encode_dialogue` makes."""
    body = _object(_parsed(data), "the body")
    if body.keys() != {"code", "limits"} or not isinstance(body["code"], str):
        raise ValueError("a dialogue takes the program's text and limits")
    return body["code"], _limits(body["limits"])


def decode_cell(data: bytes) -> tuple[str, float]:
    """(program text, seconds). Raises ValueError."""
    body = _object(_parsed(data), "the cell")
    if body.keys() != {"cell", "wall_s"} or not isinstance(body["cell"], str):
        raise ValueError("a cell has its text and wall_s")
    return body["cell"], _number(body["wall_s"], "wall_s")


def decode_cell_result(said: Any) -> CellResult:
    said = _object(said, "the result")
    if said.get("status") not in _STATUSES:
        raise ValueError(f"{said.get('status')!r} is no status")
    try:
        return CellResult(**said)
    except TypeError as error:
        raise ValueError(f"the result is not one of this version: {error}") from error


def encode_run(result: RunResult) -> dict[str, Any]:
    return {**asdict(result), "files": {name: _packed(content) for name, content in result.files.items()}}


def decode_run(said: Any, backend: str) -> RunResult:
    said = dict(_object(said, "the result"))
    said["files"] = {n: _unpacked(c, n) for n, c in _object(said.get("files"), "files").items()}
    if said.get("status") not in _STATUSES:
        raise ValueError(f"{said.get('status')!r} is no status")
    try:
        return RunResult(**{**said, "backend": backend})
    except TypeError as error:
        raise ValueError(f"the result is not one of this version: {error}") from error


def decode_answer(data: bytes) -> dict[str, Any]:
    return _object(_parsed(data), "the answer")


def above(limits: Limits, ceiling: Limits) -> str:
    """What of `limits` is above `ceiling`, in words; empty if nothing is."""
    for field in fields(Limits):
        wanted, most = getattr(limits, field.name), getattr(ceiling, field.name)
        if wanted > most:
            return f"{field.name} is {wanted}, and this server allows {most}"
    return ""


def _limits(said: Any) -> Limits:
    named = _object(said, "limits")
    if strangers := named.keys() - {field.name for field in fields(Limits)}:
        raise ValueError(f"{sorted(strangers)[0]!r} is no limit")
    whole = {field.name for field in fields(Limits) if isinstance(field.default, int)}
    for name, value in named.items():
        _number(value, name)
        if name in whole and not isinstance(value, int):
            raise ValueError(f"{name} is {value!r}: give a whole number")
    return Limits(**named)


def _number(value: Any, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 2**63:
        raise ValueError(f"{name} is {value!r}: give a number above zero")
    if name.endswith("_s") and value > _LONGEST_S:
        raise ValueError(f"{name} is {value}: at most {_LONGEST_S:g} seconds")
    return value


def _strings(value: Any, name: str) -> None:
    if not isinstance(value, list) or not all(isinstance(each, str) and "\0" not in each for each in value):
        raise ValueError(f"{name} is no list of texts")


def _object(value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{name} is no JSON object")
    return value


def _parsed(data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"it is no JSON: {str(error)[:200]}") from error


def _packed(content: str | bytes) -> str:
    return base64.b64encode(as_bytes(content)).decode()


def _unpacked(text: Any, name: str) -> bytes:
    if not isinstance(text, str):
        raise ValueError(f"{name} is no text in Base64")
    try:
        return base64.b64decode(text, validate=True)
    except ValueError as error:
        raise ValueError(f"{name} is no Base64: {error}") from error


def listed(names: Sequence[str]) -> list[str]:
    """For JSON, which has no tuples; one text is no list of texts."""
    if isinstance(names, str):
        raise TypeError(f"a list of texts is wanted, got the text {names!r}")
    return list(names)
