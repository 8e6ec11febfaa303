"""What an environment must give back, checked at the door.

What comes in: whatever an author's `reset`, `step` or `conclude` returned. What goes out: the same, known to keep the
contract. Used by the rollout, where a breach is a failed episode, and by `agentrl check`. Cheap: runs on every turn.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from agentrl.env.base import Env, Observation, StepResult
from agentrl.errors import EnvFailure, VerifierFailure
from agentrl.messages import AssistantMessage, SystemMessage, ToolMessage, UserMessage
from agentrl.trajectory import ToolUse

_MESSAGES = (SystemMessage, UserMessage, AssistantMessage, ToolMessage)
_TOLERANCE = 1e-6


def checked_reset(result: object) -> tuple[Observation, Mapping[str, Any]]:
    """`(observation, info)` of a reset.

    Raises:
        EnvFailure: it is something else.
    """
    if not isinstance(result, tuple) or len(result) != 2:
        raise EnvFailure(f"reset must return (observation, info), got {_shown(result)}")
    observation, info = result
    _want_messages("reset", observation)
    _want_info("reset", info)
    return observation, info


def checked_step(env: Env, result: object) -> tuple[StepResult, Mapping[str, float]]:
    """A step's result, and its reward's parts.

    Raises:
        EnvFailure: it does not keep the contract.
        VerifierFailure: a part of the reward is not a finite number.
    """
    if not isinstance(result, tuple) or len(result) != 5:
        raise EnvFailure(
            f"step must return StepResult(observation, reward, terminated, truncated, info), got {_shown(result)}"
        )
    step = result if type(result) is StepResult else StepResult(*result)
    _want_messages("step", step.observation)
    _want_info("step", step.info)
    if not isinstance(step.terminated, bool) or not isinstance(step.truncated, bool):
        raise EnvFailure(f"terminated and truncated must be bools, got {step.terminated!r} and {step.truncated!r}")
    parts = checked_parts(env, "step", step.info.get("rewards", {"reward": step.reward}))
    total = sum(parts.values())
    if not _is_number(step.reward) or abs(total - step.reward) > _TOLERANCE * max(1.0, abs(total)):
        raise EnvFailure(f"step gave reward {step.reward!r}, but its parts {dict(parts)} sum to {total}")
    return step, parts


def checked_parts(env: Env, where: str, parts: Any) -> Mapping[str, float]:
    """The parts of a reward.

    Raises:
        EnvFailure: they are no mapping, or `reward_kinds` does not name one.
        VerifierFailure: a part is not a finite number.
    """
    if not _is_mapping(parts):
        raise EnvFailure(f"{where} must give reward parts as a mapping, got {_shown(parts)}")
    kinds = env.reward_kinds
    for name, value in parts.items():
        if not _is_number(value) or not math.isfinite(value):
            raise VerifierFailure(f"{where} gave the reward part {name!r} as {value!r}: a finite number is wanted")
        if name not in kinds:
            raise EnvFailure(
                f"{where} gave the reward part {name!r}, which {type(env).__name__}.reward_kinds does not name; "
                f"it names {', '.join(kinds) or 'none'}"
            )
    checked: Mapping[str, float] = parts
    return checked


def _want_messages(where: str, observation: Any) -> None:
    if not _is_sequence(observation):
        raise EnvFailure(f"{where} must give the new messages as a sequence, got {_shown(observation)}")
    for message in observation:
        if not isinstance(message, _MESSAGES):
            raise EnvFailure(f"{where} must give messages (UserMessage, ToolMessage, ...), got {_shown(message)}")


def _want_info(where: str, info: Any) -> None:
    if not _is_mapping(info):
        raise EnvFailure(f"{where} must give info as a mapping, got {_shown(info)}")
    if not isinstance(info.get("state_id"), str | None):
        raise EnvFailure(f"{where}'s info['state_id'] must be a text or None, got {_shown(info['state_id'])}")
    metrics = info.get("metrics", {})
    if not _is_mapping(metrics) or not all(map(_is_number, metrics.values())) or not all(map(_is_text, metrics)):
        raise EnvFailure(f"{where}'s info['metrics'] must map names to numbers, got {_shown(metrics)}")
    tools = info.get("tools", ())
    if not _is_sequence(tools) or not all(isinstance(use, ToolUse) for use in tools):
        raise EnvFailure(f"{where}'s info['tools'] must be a sequence of ToolUse, got {_shown(tools)}")


def _is_mapping(value: object) -> bool:
    return type(value) is dict or isinstance(value, Mapping)  # the abstract class is slow to ask


def _is_sequence(value: object) -> bool:
    return type(value) in (tuple, list) or (isinstance(value, Sequence) and not isinstance(value, str))


def _is_number(value: object) -> bool:
    """Whether it is one that fits a float; bools are none."""
    if isinstance(value, float):
        return True
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**1000


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _shown(value: object) -> str:
    """A value in an error message: never long."""
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}... ({len(text)} characters)"
