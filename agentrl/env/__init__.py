"""What environment authors extend and use: `Env`, `ToolEnv`, `@tool`, `@reward`, `Task`, and the registry."""

from agentrl.env.base import Env, Observation, StepResult
from agentrl.env.check import CheckResult, check_env
from agentrl.env.holdings import Holdings, holdings
from agentrl.env.registry import EnvSpec, env_ids, make, register, spec
from agentrl.env.rubric import RewardPart, reward
from agentrl.env.task import Task
from agentrl.env.tasks import TaskSource
from agentrl.env.tool import Tool, ToolResult, tool
from agentrl.env.tool_env import ToolEnv
from agentrl.env.view import Episode, TurnView

__all__ = [
    "CheckResult",
    "Env",
    "EnvSpec",
    "Episode",
    "Holdings",
    "Observation",
    "RewardPart",
    "StepResult",
    "Task",
    "TaskSource",
    "Tool",
    "ToolEnv",
    "ToolResult",
    "TurnView",
    "check_env",
    "env_ids",
    "holdings",
    "make",
    "register",
    "reward",
    "spec",
    "tool",
]
