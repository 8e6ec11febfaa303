"""Writes docs/components.md: every component of every slot, its parameters and what its class says of itself.

What comes in: the tables of the slots. What goes out: Markdown. A test compares the page with what this would write, so
run `python docs/components.py` after a change to a component.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from agentrl.objective.reward_side.base import Credit
from agentrl.objective.spec import DEFAULTS, LIST_SLOTS, REWARD_SLOTS, SLOTS

PAGE = Path(__file__).parent / "components.md"
HEAD = """# The components of the objective

Written by `python docs/components.py` from the classes themselves; do not edit. The slots stand in the order in which
they run; [objective.md](objective.md) says what each is for. In brackets: the parameters with their defaults. i is a
trajectory, g its group, t an action token, k a turn, R the return, V the critic, r the ratio, A the advantage, mu the
sampler.

Every credit has one more parameter: `parts`, which reward parts it counts: "all" (the default), "outcome", "process",
or "none" (then only what `kl_in_reward` adds). The baseline and the scale beside it count the same ones.
"""


def page() -> str:
    """The text of the page."""
    return "\n".join([HEAD, *(line for slot in SLOTS for line in _section(slot))])


def _section(slot: str) -> Iterator[str]:
    side = "reward side" if slot in REWARD_SLOTS else "trajectory side"
    facts = [side, *(["a list, run in order"] if slot in LIST_SLOTS else [])]
    if slot in DEFAULTS and slot not in LIST_SLOTS:
        facts.append(f"`{DEFAULTS[slot]}` where nothing is said")
    yield f"## `{slot}`\n\n{', '.join(facts)}\n"
    yield "| component | what it is |\n|---|---|"
    for name, component in SLOTS[slot].items():
        text = " ".join((component.__doc__ or "").split()).replace("|", "\\|")
        yield f"| {signature(name, component)} | {text} |"
    yield ""


def signature(name: str, component: type) -> str:
    """Name, parameters and defaults."""
    own = [f for f in fields(component) if not (f.name == "parts" and issubclass(component, Credit))]
    shown = [f"`{f.name}`" if f.default is MISSING else f"`{f.name}` {_value(f.default)}" for f in own]
    return f"`{name}`" + (f" ({', '.join(shown)})" if shown else "")


def _value(default: Any) -> str:
    if isinstance(default, bool):
        return str(default).lower()
    return f'"{default}"' if isinstance(default, str) else f"{default:g}"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
