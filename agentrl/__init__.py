"""agentrl: train and evaluate language-model agents that act over many turns.

This is the face for authors of environments. Importing it loads no other package: a name is fetched from its module
when it is first used. It also sees to it that `gymnasium.make("agentrl/<id>-v0")` works.
"""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec
    from types import ModuleType

    from agentrl.env import Env as Env
    from agentrl.env import Episode as Episode
    from agentrl.env import StepResult as StepResult
    from agentrl.env import Task as Task
    from agentrl.env import ToolEnv as ToolEnv
    from agentrl.env import ToolResult as ToolResult
    from agentrl.env import TurnView as TurnView
    from agentrl.env import check_env as check_env
    from agentrl.env import env_ids as env_ids
    from agentrl.env import make as make
    from agentrl.env import register as register
    from agentrl.env import reward as reward
    from agentrl.env import tool as tool
    from agentrl.errors import ToolFailure as ToolFailure
    from agentrl.errors import VerifierFailure as VerifierFailure
    from agentrl.messages import AssistantMessage as AssistantMessage
    from agentrl.messages import Message as Message
    from agentrl.messages import SystemMessage as SystemMessage
    from agentrl.messages import ToolCall as ToolCall
    from agentrl.messages import ToolMessage as ToolMessage
    from agentrl.messages import UserMessage as UserMessage

__version__ = "0.1.0"

_FACE = {
    "agentrl.env": (
        "Env",
        "Episode",
        "StepResult",
        "Task",
        "ToolEnv",
        "ToolResult",
        "TurnView",
        "check_env",
        "env_ids",
        "make",
        "register",
        "reward",
        "tool",
    ),
    "agentrl.errors": ("ToolFailure", "VerifierFailure"),
    "agentrl.messages": ("AssistantMessage", "Message", "SystemMessage", "ToolCall", "ToolMessage", "UserMessage"),
}
_HOMES = {name: module for module, names in _FACE.items() for name in names}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'agentrl' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})


class _GymnasiumWatch:
    """Registers the environments as soon as somebody imports Gymnasium.

    Gymnasium has no plug-ins since 1.0: a package registers its environments when it is imported. Importing Gymnasium
    for that would make `import agentrl` many times slower for all who do not use it.
    """

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        if name != "gymnasium":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def execute_and_register(module: ModuleType) -> None:
            execute(module)
            importlib.import_module("agentrl.env.gym")

        spec.loader.exec_module = execute_and_register  # type: ignore[method-assign]
        return spec


if "gymnasium" in sys.modules:
    importlib.import_module("agentrl.env.gym")
else:
    import importlib.util

    sys.meta_path.insert(0, _GymnasiumWatch())
