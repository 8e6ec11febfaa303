"""What a preset is, choice by choice.

What comes in: a spec. What goes out: for every slot its component, parameters, side and what its class says of itself;
and what a run with it needs, from what the components declare. Loads no torch.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from agentrl.objective.component import describe
from agentrl.objective.memory import Remembers
from agentrl.objective.spec import LIST_SLOTS, REWARD_SLOTS, SLOTS, ObjectiveSpec

_PAPER = re.compile(r"\b\d{4}\.\d{5}\b")  # an arXiv id


@dataclass(frozen=True, slots=True)
class Choice:
    """What stands in a slot; a list slot has several, or one that is empty."""

    slot: str
    side: str  # "reward" or "trajectory"
    name: str  # "none" where a list is empty
    parameters: Mapping[str, Any]
    does: str
    papers: tuple[str, ...]  # arXiv ids that its class names

    @property
    def text(self) -> str:
        """Name and parameters."""
        return " ".join([self.name, *(f"{key}={_plain(value)}" for key, value in self.parameters.items())])

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "slot": self.slot,
            "side": self.side,
            "name": self.name,
            "parameters": dict(self.parameters),
            "does": self.does,
            "papers": list(self.papers),
        }


def choices(spec: ObjectiveSpec) -> list[Choice]:
    """Of every slot, in the order in which they run."""
    return [choice for slot in SLOTS for choice in _of_slot(spec, slot)]


def differences(spec: ObjectiveSpec, other: ObjectiveSpec) -> list[tuple[str, list[Choice], list[Choice]]]:
    """The slots that differ, with both sides' choices."""
    pairs = ((slot, list(_of_slot(spec, slot)), list(_of_slot(other, slot))) for slot in SLOTS)
    return [(slot, mine, theirs) for slot, mine, theirs in pairs if mine != theirs]


def needs(spec: ObjectiveSpec) -> list[str]:
    """What a run must give it."""
    return list(_needs(spec))


def family(spec: ObjectiveSpec) -> str:
    """Where it stands among the presets."""
    if not spec.in_frame:
        return "another objective than E[R]"
    if spec.needs_values:
        return "with a critic"
    if spec.advantages_vary and (spec.needs_groups or spec.terms):
        return "credit of turns, compared in groups"
    if spec.mismatch or spec.anchor.of_sampler:
        return "samples of another policy"
    return {"reward": "reward side", "trajectory": "trajectory side"}.get(spec.side, "both sides")


def _of_slot(spec: ObjectiveSpec, slot: str) -> Iterator[Choice]:
    side = "reward" if slot in REWARD_SLOTS else "trajectory"
    standing = vars(spec)[slot]
    components = standing if slot in LIST_SLOTS else (standing,)
    if not components:
        yield Choice(slot, side, "none", {}, "", ())
    for component in components:
        described = describe(component, SLOTS[slot])
        doc = " ".join((type(component).__doc__ or "").split("\n\n")[0].split())
        papers = tuple(dict.fromkeys(_PAPER.findall(type(component).__doc__ or "")))
        yield Choice(slot, side, described.pop("name"), described, doc, papers)


def _needs(spec: ObjectiveSpec) -> Iterator[str]:
    compares = any(f.needs_groups for f in spec.filters) or any(t.scope != "own" for t in spec.terms)
    if spec.needs_groups or compares:
        yield "groups: rollout.group_size of at least 2"
    if spec.needs_states:
        yield "state ids: an environment that gives info['state_id']"
    if spec.needs_unsampled:
        yield f"{spec.needs_unsampled}: no sampler here gives them"
    if spec.needs_values:
        yield f"a critic: a head of the learner that predicts returns ({spec.critic.kind} values)"
    if spec.needs_reference:
        yield "a reference: a frozen copy of the policy"
    if spec.needs_teacher:
        yield "a teacher: learner.teacher"
    if spec.needs_greedy:
        yield "a greedy rollout of each task"
    if not spec.ratio.corrects:
        yield "one update a batch: it has no ratio to correct a second one"
    if spec.needs_whole_trajectories:
        yield "all tokens of a trajectory in one micro-batch"
    for component in spec.components:
        if isinstance(component, Remembers):
            yield f"memory from step to step ({component.key}), kept with the checkpoint"


def _plain(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
