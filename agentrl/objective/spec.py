"""An objective as data: one component for each slot of the two sides.

What comes in: a preset's name and overrides. What goes out: a checked `ObjectiveSpec`. Loads no torch. The slots run in
this order: filters, shape, kl_in_reward, credit, baseline, scale (reward side: one advantage for every action token),
then ratio, gate, mismatch, regularize, aggregate (trajectory side: one loss).
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from agentrl.errors import ConfigError, UnknownNameError, nearest
from agentrl.objective import soundness
from agentrl.objective.component import build, describe, split_choice
from agentrl.objective.reward_side.baseline import BASELINES, Baseline
from agentrl.objective.reward_side.credit import CREDITS, Credit
from agentrl.objective.reward_side.kl import KLS_IN_REWARD, KlInReward
from agentrl.objective.reward_side.scale import SCALES, Scale
from agentrl.objective.reward_side.shape import SHAPES, Shape
from agentrl.objective.trajectory_side.aggregate import AGGREGATES, Aggregate
from agentrl.objective.trajectory_side.gate import GATES, Gate
from agentrl.objective.trajectory_side.mismatch import MISMATCHES, Mismatch
from agentrl.objective.trajectory_side.ratio import RATIOS, Ratio
from agentrl.objective.trajectory_side.regularize import REGULARIZERS, Regularizer
from agentrl.objective.trajectory_side.select import FILTERS, GroupFilter, TokenFilter

SLOTS: Mapping[str, Mapping[str, type]] = {
    "filters": FILTERS,
    "shape": SHAPES,
    "kl_in_reward": KLS_IN_REWARD,
    "credit": CREDITS,
    "baseline": BASELINES,
    "scale": SCALES,
    "ratio": RATIOS,
    "gate": GATES,
    "mismatch": MISMATCHES,
    "aggregate": AGGREGATES,
    "regularize": REGULARIZERS,
}
LIST_SLOTS = ("filters", "regularize")  # hold any number of components, run in order
ABOUT = ("name", "title", "formula", "side", "source", "in_frame")
SIDES = ("reward", "trajectory", "both", "outside")


@dataclass(frozen=True, kw_only=True)
class ObjectiveSpec:
    """A point in the product of the two sides. Making one refuses combinations that cannot be right.

    Raises:
        ConfigError: the components do not go together; the message gives the reason.
    """

    name: str
    title: str
    formula: str
    side: str  # which side the method is about: one of SIDES
    source: str  # the paper
    in_frame: bool  # optimises E[R(tau)]
    filters: tuple[GroupFilter | TokenFilter, ...]
    shape: Shape
    kl_in_reward: KlInReward
    credit: Credit
    baseline: Baseline
    scale: Scale
    ratio: Ratio
    gate: Gate
    mismatch: Mismatch
    aggregate: Aggregate
    regularize: tuple[Regularizer, ...]

    def __post_init__(self) -> None:
        soundness.refuse(self.name, soundness.combination_faults(self))

    @property
    def needs_reference(self) -> bool:
        """Log-probs of a frozen reference are read."""
        return self.kl_in_reward.needs_reference or any(r.needs_reference for r in self.regularize)

    @property
    def needs_logprobs(self) -> bool:
        """The reward side reads the policy's own log-probs, so they are needed even for a single update."""
        return self.kl_in_reward.needs_reference

    @property
    def needs_groups(self) -> bool:
        """Trajectories are compared within their group; one alone in its group gets advantage 0."""
        return "group" in (self.baseline.scope, self.scale.scope)

    @property
    def needs_whole_trajectories(self) -> bool:
        """All action tokens of a trajectory must be in one micro-batch."""
        return self.ratio.of_sequence

    def check(self, *, group_size: int, updates_per_batch: int = 1, has_reference: bool = True) -> None:
        """Refuse a run that this objective cannot be right in.

        Args:
            group_size: episodes a task
            updates_per_batch: optimiser updates on one step's batch (epochs x minibatches)
            has_reference: whether the learner keeps a frozen reference

        Raises:
            ConfigError: the message gives the reason and what to change.
        """
        soundness.refuse(self.name, soundness.run_faults(self, group_size, updates_per_batch, has_reference))

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as they would stand in a preset's file."""
        values = vars(self)
        out: dict[str, Any] = {key: values[key] for key in ABOUT}
        for slot, table in SLOTS.items():
            parts = [describe(c, table) for c in (values[slot] if slot in LIST_SLOTS else (values[slot],))]
            out[slot] = parts if slot in LIST_SLOTS else parts[0]
        return out


def preset_names() -> list[str]:
    """Names of the presets that ship."""
    return sorted(f.name.removesuffix(".toml") for f in _folder().iterdir() if f.name.endswith(".toml"))


def load_spec(preset: str, overrides: Mapping[str, Any] | None = None) -> ObjectiveSpec:
    """The preset with some slots changed.

    An override is a component's name, a table with a name (both replace the slot's component), or a table without a
    name (changes parameters of the component that stands there). `filters` and `regularize` also take lists, and "none"
    for an empty one.

    Raises:
        UnknownNameError: no such preset, slot or component.
        ConfigError: a parameter is wrong, or the components do not go together.
    """
    table = dict(_read(preset))
    for slot, override in (overrides or {}).items():
        if slot not in SLOTS:
            raise UnknownNameError("objective slot", slot, SLOTS)
        table[slot] = _override(slot, table[slot], override)
    return spec_from_table(table)


def spec_from_table(table: Mapping[str, Any]) -> ObjectiveSpec:
    """Make a spec from what a preset's file says.

    Raises:
        ConfigError: a key is missing or unknown, a component cannot be made, or the components do not go together.
    """
    keys = (*ABOUT, *SLOTS)
    for key in table:
        if key not in keys:
            raise ConfigError(
                f"a preset has no key {key!r}; did you mean {nearest(key, keys)!r}? Keys: {', '.join(keys)}"
            )
    missing = [key for key in keys if key not in table]
    if missing:
        raise ConfigError(f"preset {table.get('name', '?')!r} lacks {', '.join(missing)}")
    if table["side"] not in SIDES:
        raise ConfigError(f"preset {table['name']!r}: side must be one of {', '.join(SIDES)}, got {table['side']!r}")
    made: dict[str, Any] = {key: table[key] for key in ABOUT}
    for slot, components in SLOTS.items():
        if slot in LIST_SLOTS:
            made[slot] = tuple(build(slot, choice, components) for choice in _as_list(table[slot]))
        else:
            made[slot] = build(slot, table[slot], components)
    return ObjectiveSpec(**made)


def _override(slot: str, current: Any, override: Any) -> Any:
    if not isinstance(override, Mapping) or "name" in override:
        return override
    standing = _as_list(current) if slot in LIST_SLOTS else [current]
    if len(standing) != 1:
        raise ConfigError(
            f"objective.{slot} holds {len(standing)} components, so {dict(override)} does not say which one it "
            "changes; give the name too"
        )
    name, parameters = split_choice(slot, standing[0])
    return {"name": name, **parameters, **override}


def _as_list(value: Any) -> Sequence[Any]:
    if value == "none":
        return []
    return value if isinstance(value, list | tuple) else [value]


@cache
def _read(preset: str) -> Mapping[str, Any]:
    if preset not in preset_names():
        raise UnknownNameError("objective preset", preset, preset_names())
    return tomllib.loads((_folder() / f"{preset}.toml").read_text(encoding="utf-8"))


def _folder() -> Any:
    return resources.files("agentrl.objective.presets")
