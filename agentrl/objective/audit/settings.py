"""The settings that estimators are audited in.

What comes in: group sizes, and whether the sampler is another policy than the one that is trained. What goes out:
settings, their batches not yet made. Knows no objective.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from agentrl.objective.audit.cast import Cast, Policies
from agentrl.objective.audit.draws import Setting, forest, one_task, two_tasks
from agentrl.objective.audit.policy import Policy
from agentrl.objective.audit.world import World
from agentrl.objective.audit.worlds import DETOUR, EASY, ERRAND, HARD, SEARCH

PHASES = {"errand": 3.2, "detour": 1.0, "easy": 2.4, "hard": 2.2, "search": 0.0}  # of each world's policy
STRAY = 0.5  # how far the sampler's logits are from the policy's, off-policy


def policies(world: World, *, off_policy: bool = False) -> Policies:
    """On-policy one policy samples, scores and is trained; off-policy another one sampled."""
    policy = Policy.waving(world, PHASES[world.name])
    made = Policies(sampler=policy, old=policy, now=policy, reference=policy.moved(1.0, by=0.6))
    return replace(made, sampler=policy.moved(2.0, by=STRAY)) if off_policy else made


def cast(world: World, *, off_policy: bool = False) -> Cast:
    """The world's episodes under these policies."""
    return Cast(policies(world, off_policy=off_policy))


def standard(sizes: Sequence[int] = (2, 3), *, off_policy: bool = False) -> tuple[Setting, ...]:
    """One task with a group of each size, in two worlds; and two tasks with groups of the smallest, of 3 at most."""
    errand, detour, easy, hard = (cast(w, off_policy=off_policy) for w in (ERRAND, DETOUR, EASY, HARD))
    return (
        *(one_task(errand, size) for size in sizes),
        *(one_task(detour, size) for size in sizes),
        two_tasks(easy, hard, min(*sizes, 3)),
    )


def branched() -> tuple[Setting, ...]:
    """Groups whose trajectories share first turns."""
    return (forest(cast(ERRAND), trees=1, branches=3), forest(cast(ERRAND), trees=2, branches=2))


def blurred(sizes: Sequence[int] = (2, 3)) -> tuple[Setting, ...]:
    """State ids that hide how much time is left."""
    return tuple(one_task(cast(SEARCH), size) for size in sizes)
