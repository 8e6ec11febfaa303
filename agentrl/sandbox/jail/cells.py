"""Code that talks back: the cells of a session, and one call whose value is wanted as JSON.

Both ends of the conversation belong to code that nobody trusts: what is sent from here is data of a stranger, no more.
"""

from __future__ import annotations

import ast
import json
import os
import signal
import sys
from typing import Any, NoReturn

from .branch import fork_session
from .program import compiled, exit_code, flush, fresh_main, guarded, leave, remember_source

FORK = (1 << 32) - 1  # in the place of a cell's length: fork, and there is no cell
_DEEPEST = 100  # levels of lists and dictionaries in a call's value


def serve_cells(fd: int) -> NoReturn:
    """Reads cells (4 bytes of length, then UTF-8) until end-of-file; answers each with a length and JSON
    `{"ending": "ok" | "error" | "interrupted" | "exit", "error": name of the exception, "code": exit code}`.
    `FORK` for a length is answered with `{"ending": "forked" | "error"}`; the branch goes on here with the next cell of
    its own, for by then another conversation stands behind `fd`."""
    namespace = fresh_main()
    sys.argv[:] = [""]
    number = 0
    while (source := _receive(fd)) is not None:
        if isinstance(source, int):
            flush()
            if said := fork_session():
                _send(fd, said)
            continue
        number += 1
        answer = _run_cell(source, f"<cell {number}>", namespace)
        flush()
        _send(fd, answer)
        if answer["ending"] == "exit":
            leave(answer["code"])
    leave(0)


def _run_cell(source: str, name: str, namespace: dict[str, Any]) -> dict[str, Any]:
    raised: list[BaseException] = []

    def work() -> None:
        try:
            _execute(source, name, namespace)
        except BaseException as error:
            raised.append(error)
            raise

    remember_source(name, source)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        try:
            code = guarded(work)
        finally:
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # between cells there is nothing to interrupt
    except KeyboardInterrupt:
        return {"ending": "interrupted", "error": "KeyboardInterrupt"}
    if not raised:
        return {"ending": "ok"}
    kind = type(raised[0]).__name__
    if isinstance(raised[0], SystemExit):
        return {"ending": "exit", "error": kind, "code": exit_code(raised[0].code) if code == 0 else code}
    return {"ending": "interrupted" if isinstance(raised[0], KeyboardInterrupt) else "error", "error": kind}


def _execute(source: str, name: str, namespace: dict[str, Any]) -> None:
    """As at a prompt: if the last statement is an expression, its value is shown."""
    tree = ast.parse(source.removeprefix("\ufeff"), name)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, name, "exec", dont_inherit=True), namespace)
    if last is not None:
        exec(compile(ast.Interactive([last]), name, "single", dont_inherit=True), namespace)


def _receive(fd: int) -> str | int | None:
    """A cell, `FORK`, or None at the end."""
    head = _exactly(fd, 4)
    if head is None:
        return None
    size = int.from_bytes(head, "big")
    if size == FORK:
        return FORK
    body = _exactly(fd, size)
    return None if body is None else body.decode()


def _exactly(fd: int, size: int) -> bytes | None:
    parts = []
    while size:
        part = os.read(fd, min(size, 1 << 20))
        if not part:
            return None
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _send(fd: int, answer: dict[str, Any]) -> None:
    body = json.dumps(answer).encode()
    _write_all(fd, len(body).to_bytes(4, "big") + body)


def _write_all(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]


def answer_call(fd: int, head: dict[str, Any]) -> NoReturn:
    """Runs `head["code"]`, calls its `head["function"]` with `head["arguments"]` (JSON) and writes `{"value": ...}`."""
    sys.argv[:] = ["main.py"]
    namespace = fresh_main()
    namespace["__name__"] = "candidate"  # what stands under `if __name__ == "__main__"` is no part of a function
    sys.modules["candidate"] = sys.modules["__main__"]  # where dataclasses and pickle look for what it defines
    remember_source("main.py", head["code"])
    answers: list[bytes] = []

    def work() -> None:
        exec(compiled(head["code"], "main.py"), namespace)
        args, kwargs = json.loads(head["arguments"])
        value = _plain(namespace[head["function"]](*args, **kwargs))
        answers.append(json.dumps({"value": value}).encode())

    code = guarded(work)
    if code == 0 and answers:
        _write_all(fd, answers[0])
    leave(code)


def _plain(value: Any, depth: int = 0) -> Any:
    """The value, of JSON's own types and no subclass of them; a tuple counts as a list. Raises TypeError else."""
    kind = type(value)
    if depth > _DEEPEST:
        raise TypeError(f"the value is nested deeper than {_DEEPEST} levels")
    if kind in (list, tuple):
        return [_plain(each, depth + 1) for each in value]
    if kind is dict and all(type(key) is str for key in value):
        return {key: _plain(each, depth + 1) for key, each in value.items()}
    if value is None or kind in (bool, int, float, str):
        return value
    raise TypeError(
        f"the value holds a {kind.__name__}: JSON has None, bool, int, float, str, list and dict with str keys"
    )
