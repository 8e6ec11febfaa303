"""Whether a recipe makes sense and can run here: ranges, names, paths and packages, before anything costly starts.

In: a typed `Recipe`. Out: nothing, or a `UserError` that says what to change. Imports no backend: whether a GPU
answers is known only once torch is loaded, and is asked by the training loop.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from agentrl.config.engines import check_engine, first_changed
from agentrl.env.base import Env
from agentrl.env.registry import make
from agentrl.errors import ConfigError
from agentrl.learner.settings import LearnerSettings, PolicySettings, TinySettings
from agentrl.objective.loading import load_spec
from agentrl.render.parsers import AUTO, PythonBlockParser, make_parser
from agentrl.train.recipe import Recipe

_MAY_BE_ZERO = frozenset(
    {
        "seed",
        "policy.tiny.merges",
        "warmup.steps",
        "warmup.optimizer.weight_decay",
        "warmup.optimizer.warmup_steps",
        "warmup.optimizer.betas",
        "rollout.max_failed_share",
        "rollout.retry.engine",
        "rollout.retry.env",
        "rollout.retry.tool",
        "rollout.retry.sandbox",
        "rollout.retry.verifier",
        "rollout.retry.backoff_s",
        "rollout.retry.backoff_max_s",
        "engine.server.retries",
        "engine.server.backoff_s",
        "engine.openai.retries",
        "engine.openai.backoff_s",
        "learner.optimizer.weight_decay",
        "learner.optimizer.warmup_steps",
        "learner.optimizer.betas",
        "evaluation.every",
        "train.steps",
        "train.max_staleness",
        "train.checkpoint_every",
        "train.save_trajectories_every",
        "launch.threads",
    }
)
_MOST = {"engine.vllm.gpu_memory_utilization": 1.0, "rollout.max_failed_share": 1.0}
_LEAST = {"rollout.oversample": 1.0}
_BELOW = {"warmup.optimizer.betas": 1.0, "learner.optimizer.betas": 1.0}


def check_recipe(recipe: Recipe) -> None:
    """Refuse a recipe that cannot run as written.

    Raises:
        UserError: the first thing found, with the setting's full path, the reason and what to change.
    """
    check_ranges(recipe)
    _check_name(recipe.name)
    check_engine(recipe.engine)
    check_policy(recipe.policy)
    _check_limits(recipe)
    _check_device(recipe.launch.device)
    _check_objective(recipe)
    check_tools(recipe.policy.parser, make(recipe.env.id, **recipe.env.settings))


def check_tools(parser: str, env: Env) -> None:
    """The environment has the tool that the parser calls, where that is one of its own choice."""
    made = None if parser == AUTO else make_parser(parser)
    if isinstance(made, PythonBlockParser):
        made.check(env.tool_schemas, type(env).__name__)


def check_ranges(settings: Any, table: str = "") -> None:
    """Every number of the settings, which stand in `table`, is above 0 or may be 0; shares are at most 1."""
    for path, number in _numbers(settings, table):
        if not math.isfinite(number):
            raise ConfigError(f"{path} is {number}, wanted a finite number")
        if number < 0 or (number == 0 and path not in _MAY_BE_ZERO):
            wanted = "0 or more" if path in _MAY_BE_ZERO else "more than 0"
            raise ConfigError(f"{path} is {number}, wanted {wanted}")
        if path == "seed" and number >= 2**63:
            raise ConfigError(f"seed is {number}, wanted less than 2**63")
        if number < _LEAST.get(path, 0):
            raise ConfigError(f"{path} is {number}, wanted at least {_LEAST[path]:g}")
        if number > _MOST.get(path, math.inf):
            raise ConfigError(f"{path} is {number}, wanted at most {_MOST[path]:g}")
        if number >= _BELOW.get(path, math.inf):
            raise ConfigError(f"{path} has {number}, wanted less than {_BELOW[path]:g}")


def check_policy(policy: PolicySettings) -> None:
    """The policy is `tiny`, a checkpoint folder that is there, or a name to be looked up on the Hugging Face hub."""
    if policy.parser != AUTO:
        make_parser(policy.parser)
    if policy.path == "tiny":
        if policy.tiny.heads % policy.tiny.kv_heads:
            raise ConfigError(
                f"policy.tiny.heads is {policy.tiny.heads}, wanted a multiple of kv_heads ({policy.tiny.kv_heads})"
            )
        if policy.tiny.head_dim % 2:
            raise ConfigError(f"policy.tiny.head_dim is {policy.tiny.head_dim}, wanted an even number")
        return
    check_model_path(policy.path, "policy.path")
    if policy.tiny != TinySettings():
        changed = first_changed(policy.tiny, TinySettings())
        raise ConfigError(
            f"policy.tiny.{changed} is set, but policy.path is {policy.path!r} and would ignore it: "
            "remove it or set policy.path = 'tiny'"
        )


def check_model_path(path: str, setting: str) -> None:
    """Refuse what is meant as a folder and is none, or is one without a model.

    A hub name, `model` or `owner/model`, passes, unless a folder called `owner` is here: then a folder was meant.
    """
    folder = Path(path).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise ConfigError(f"{setting} {path!r} has no config.json; give a folder in Hugging Face format")
        return
    hub_name = re.fullmatch(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?", path) is not None
    if not hub_name or folder.exists() or ("/" in path and folder.parent.is_dir()):
        raise ConfigError(f"{setting}: there is no model folder {path!r}; give a checkpoint folder or a hub name")


def _check_limits(recipe: Recipe) -> None:
    longest, context = recipe.rollout.max_tokens_per_episode, recipe.engine.max_context
    if longest > context:
        raise ConfigError(
            f"rollout.max_tokens_per_episode is {longest}, but engine.max_context is {context}: "
            f"lower the first or set engine.max_context = {longest}"
        )
    turn_s, try_s = recipe.rollout.turn_deadline_s, recipe.engine.server.request_deadline_s
    if recipe.engine.kind == "vllm-server" and try_s >= turn_s:
        raise ConfigError(
            f"engine.server.request_deadline_s is {try_s:g} and rollout.turn_deadline_s {turn_s:g}: a server that "
            "hangs would never be found out; set the first lower than the second"
        )
    if recipe.train.stale != "drop" and not recipe.train.max_staleness:
        raise ConfigError(
            f"train.stale is {recipe.train.stale!r}, but train.max_staleness is 0, so nothing is ever stale: "
            "remove it, or set train.max_staleness"
        )


def _check_objective(recipe: Recipe) -> None:
    """The objective's pieces go together, and this run gives it what it needs."""
    spec, learner = load_spec(recipe.objective.preset, recipe.objective.overrides), recipe.learner
    spec.check(
        group_size=recipe.rollout.group_size,
        updates_per_batch=learner.epochs * learner.minibatches,
        has_teacher=bool(learner.teacher),
    )
    if learner.teacher:
        check_model_path(learner.teacher, "learner.teacher")
    if learner.value_lr != LearnerSettings().value_lr and not spec.needs_values:
        raise ConfigError(
            f"learner.value_lr is set, but the objective {spec.name!r} has no critic and would ignore it: remove it or "
            "choose an objective with a critic, such as objective.preset = 'ppo'"
        )


def _check_name(name: str) -> None:
    """The name is part of the run folder's."""
    if re.fullmatch(r"[\w.-]+", name) is None or name.strip(".") == "":
        raise ConfigError(f"name is {name!r}, wanted letters, digits, '-', '_' and '.'")


def _check_device(device: str) -> None:
    if re.fullmatch(r"auto|cpu|cuda(:\d+)?", device) is None:
        raise ConfigError(f"launch.device is {device!r}, wanted 'auto', 'cpu', 'cuda' or 'cuda:N'")


def _numbers(value: Any, path: str = "") -> Iterator[tuple[str, float]]:
    """Give every number of the typed tree with its dotted path; what envs and objectives own is checked by them."""
    if is_dataclass(value):
        for field in fields(value):
            yield from _numbers(getattr(value, field.name), f"{path}.{field.name}".lstrip("."))
    elif isinstance(value, tuple):
        for inner in value:
            yield from _numbers(inner, path)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield path, value
