"""`agentrl objective explain` and `agentrl objective list`: what a preset is, choice by choice, and which there are."""

from __future__ import annotations

import argparse
from typing import Any

from agentrl.cli.output import STDOUT, print_table, write_json
from agentrl.errors import UnknownNameError
from agentrl.objective.audit.report import brief, recorded_rows
from agentrl.objective.catalogue import Unbuilt, unbuilt_methods
from agentrl.objective.explain import Choice, choices, differences, family, needs
from agentrl.objective.loading import load_spec, preset_names
from agentrl.objective.spec import ABOUT, ObjectiveSpec


def run(arguments: argparse.Namespace) -> int:
    """`agentrl objective explain`."""
    unbuilt = {method.name: method for method in unbuilt_methods()}
    if arguments.preset in unbuilt and arguments.preset not in preset_names():
        _explain_unbuilt(unbuilt[arguments.preset], arguments)
    elif arguments.against is not None:
        _compare(_load(arguments.preset, list(unbuilt)), _load(arguments.against, []), arguments)
    else:
        _explain(_load(arguments.preset, list(unbuilt)), arguments)
    return 0


def run_list(arguments: argparse.Namespace) -> int:
    """`agentrl objective list`."""
    families: dict[str, list[ObjectiveSpec]] = {}
    for spec in map(load_spec, preset_names()):
        families.setdefault(family(spec), []).append(spec)
    if arguments.json != STDOUT:
        for name, specs in sorted(families.items()):
            print_table(name, ("name", "side", "what it is"), [(s.name, s.side, s.title) for s in specs])
            print()
        rows = [(m.name, m.side, m.title, m.needs) for m in unbuilt_methods()]
        print_table("not built", ("name", "side", "what it is", "what it needs"), rows)
    write_json(
        arguments.json,
        {
            "presets": [
                {"name": s.name, "family": name, "side": s.side, "title": s.title}
                for name, specs in sorted(families.items())
                for s in specs
            ],
            "unbuilt": [_unbuilt_dict(m) for m in unbuilt_methods()],
        },
    )
    return 0


def _load(name: str, unbuilt: list[str]) -> ObjectiveSpec:
    if not name.endswith(".toml") and name not in preset_names():
        raise UnknownNameError("objective preset", name, [*preset_names(), *unbuilt])
    return load_spec(name)


def _explain(spec: ObjectiveSpec, arguments: argparse.Namespace) -> None:
    audited = recorded_rows(arguments.preset)
    if arguments.json != STDOUT:
        print(f"{spec.name}: {spec.title}\n")
        for name, text in _about(spec).items():
            print(f"{name + ':':<11}{text}")
        for row in audited:
            _, verdict, error, cosine, variance, why = brief(row)
            numbers = "" if error == "-" else f" (error {error}, cosine {cosine}, variance {variance} times rloo's)"
            critic = (
                f"with {'an' if row['critic'] == 'exact' else 'a'} {row['critic']} critic: " if row["critic"] else ""
            )
            print(f"{'audit:':<11}{critic}{verdict}{numbers}: {why}")
        for need in needs(spec) or ["nothing beside the samples"]:
            print(f"{'needs:':<11}{need}")
        print()
        print_table("in the order in which they run", ("slot", "side", "choice", "what it does"), _rows(choices(spec)))
    write_json(
        arguments.json,
        {
            **{key: vars(spec)[key] for key in ABOUT},
            "needs": needs(spec),
            "audit": audited,
            "choices": [choice.as_dict() for choice in choices(spec)],
        },
    )


def _about(spec: ObjectiveSpec) -> dict[str, str]:
    frame = "inside: it optimises E[R]" if spec.in_frame else "outside: it optimises something else than E[R]"
    return {
        "formula": spec.formula,
        "side": spec.side,
        "addresses": spec.addresses,
        "source": spec.source,
        "frame": frame,
    }


def _rows(found: list[Choice]) -> list[tuple[str, str, str, str]]:
    return [(c.slot, c.side, c.text, c.does) for c in found if c.name != "none" or c.does]


def _compare(spec: ObjectiveSpec, other: ObjectiveSpec, arguments: argparse.Namespace) -> None:
    found = differences(spec, other)
    if arguments.json != STDOUT:
        for each in (spec, other):
            print(f"{each.name}: {each.title}\n  {each.formula}")
        print()
        if found:
            rows = [(slot, mine[0].side, _texts(mine), _texts(theirs)) for slot, mine, theirs in found]
            print_table("the slots that differ", ("slot", "side", spec.name, other.name), rows)
        else:
            print("every slot is the same")
    write_json(
        arguments.json,
        {
            "preset": spec.name,
            "against": other.name,
            "differences": [
                {
                    "slot": slot,
                    "side": mine[0].side,
                    spec.name: [c.as_dict() for c in mine],
                    other.name: [c.as_dict() for c in theirs],
                }
                for slot, mine, theirs in found
            ],
        },
    )


def _texts(found: list[Choice]) -> str:
    return ", ".join(choice.text for choice in found)


def _explain_unbuilt(method: Unbuilt, arguments: argparse.Namespace) -> None:
    if arguments.json != STDOUT:
        print(f"{method.title}\n")
        print(f"{'side:':<11}{method.side}")
        print(f"{'source:':<11}{method.source}")
        print(f"{'built:':<11}no; it needs {method.needs}")
    write_json(arguments.json, _unbuilt_dict(method))


def _unbuilt_dict(method: Unbuilt) -> dict[str, Any]:
    return {
        "name": method.name,
        "title": method.title,
        "side": method.side,
        "source": method.source,
        "needs": method.needs,
    }
