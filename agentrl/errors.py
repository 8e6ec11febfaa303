"""Every error agentrl raises on purpose, as one tree.

What comes in: nothing. What goes out: exception classes. A message says what was got, what was wanted and what to do.
`UserError` and its children are the user's to mend: the command line prints them on one line and exits with code 2.
`BoundaryError` and its children say which piece of machinery broke; the rollout turns them into a failed `Outcome`.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class AgentRLError(Exception):
    """Base of all errors that agentrl raises on purpose."""


class UserError(AgentRLError):
    """Something the user gave cannot be used; the message says what to change."""


class ConfigError(UserError):
    """A setting is unknown, of the wrong type, or not honoured by the chosen backend."""


class UnknownNameError(UserError):
    """A name was looked up (env, preset, engine, suite, ...) and is not there."""

    def __init__(self, kind: str, got: str, known: Iterable[str], *, hint: str = "") -> None:
        names = sorted(known)
        near = nearest(got, names)
        message = f"there is no {kind} {got!r}"
        if near:
            message += f"; did you mean {near!r}?"
        message += f" Known: {', '.join(names)}." if near else f"; known: {', '.join(names) or 'none'}."
        super().__init__(f"{message} {hint}".strip())


class EnvDefinitionError(UserError):
    """An environment, tool or reward is declared in a way that cannot work."""


class DataError(UserError):
    """A data file is missing or has a broken line; the file and line number are named."""


class MissingDependencyError(UserError):
    """An optional package is needed for what was asked and is not installed."""


class SyncError(AgentRLError):
    """After a weight push the engine and the learner disagree, or the push did not arrive."""


class RunStoppedError(AgentRLError):
    """A run stopped itself: too many failed episodes, a non-finite loss, ..."""


class BoundaryError(AgentRLError):
    """Machinery broke at a boundary. Never a reward of 0: the trajectory is failed and has no reward."""


class EnvFailure(BoundaryError):
    """The environment's own code broke or missed its deadline."""


class ToolFailure(BoundaryError):
    """A tool's machinery broke. Raise it from a tool when the fault is not the model's."""


class EngineFailure(BoundaryError):
    """The engine could not sample."""


class SandboxFailure(BoundaryError):
    """The sandbox could not run the code."""


class VerifierFailure(BoundaryError):
    """The verifier or a reward function broke."""


def described(error: BaseException) -> str:
    """An error's class and text, whatever its own class does when it is asked for the text."""
    try:
        text = str(error)
    except Exception:
        text = ""
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def nearest(got: str, known: Iterable[str]) -> str | None:
    """Return the known name closest to `got`, or None if none is close."""
    near = difflib.get_close_matches(got, list(known), n=1, cutoff=0.5)
    return near[0] if near else None
