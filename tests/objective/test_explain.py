"""What a preset is said to be: its choices, their sides, what a run must give it, and where it differs from another."""

from __future__ import annotations

import pytest

from agentrl.objective import load_spec, preset_names
from agentrl.objective.explain import choices, differences, family, needs
from agentrl.objective.spec import REWARD_SLOTS, SLOTS


def test_every_slot_has_its_choice_with_side_parameters_and_what_it_does():
    found = choices(load_spec("gigpo"))
    assert list(dict.fromkeys(c.slot for c in found)) == list(SLOTS)
    assert {c.side for c in found if c.slot in REWARD_SLOTS} == {"reward"}
    assert {c.side for c in found if c.slot not in REWARD_SLOTS} == {"trajectory"}
    (term,) = [c for c in found if c.slot == "terms"]
    assert term.text == "anchor_state weight=1 gamma=0.95 std=True history=1"
    assert term.papers[0] == "2505.10978"
    assert term.does.startswith("weight z(G_k)")
    (empty,) = [c for c in found if c.slot == "mismatch"]
    assert (empty.name, empty.does) == ("none", "")


def test_a_list_slot_gives_each_of_its_components():
    assert [c.name for c in choices(load_spec("dapo")) if c.slot == "filters"] == [
        "zero_variance_drop",
        "truncated_mask",
    ]


@pytest.mark.parametrize("preset", preset_names())
def test_every_component_of_every_preset_says_what_it_does(preset):
    for choice in choices(load_spec(preset)):
        assert choice.name == "none" or len(choice.does) > 5
        assert "\n" not in choice.does


def test_differences_are_the_slots_whose_component_or_parameters_differ():
    found = differences(load_spec("dapo"), load_spec("grpo"))
    assert [slot for slot, _, _ in found] == ["filters", "shape", "gate", "regularize", "aggregate"]
    assert [c.text for slot, mine, theirs in found for c in (*mine, *theirs) if slot == "gate"] == [
        "clip low=0.2 high=0.28",
        "clip low=0.2 high=0.2",
    ]
    assert differences(load_spec("grpo"), load_spec("grpo")) == []


@pytest.mark.parametrize(
    ("preset", "wanted"),
    [
        ("grpo", ["groups"]),
        ("reinforce", ["one update a batch"]),
        ("gigpo", ["groups", "state ids"]),
        ("ppo", ["a critic"]),
        ("remax", ["a greedy rollout", "one update a batch"]),
        ("opd", ["a teacher"]),
        ("gspo", ["groups", "all tokens of a trajectory"]),
        ("rae", ["one update a batch", "memory from step to step (ema)"]),
        ("ppo_adaptive_kl", ["a critic", "a reference", "memory from step to step (adaptive_k1)"]),
        ("ragen2", ["groups"]),
        ("rft", ["one update a batch"]),
    ],
)
def test_needs(preset, wanted):
    got = needs(load_spec(preset))
    assert len(got) == len(wanted)
    assert all(text.startswith(start) for text, start in zip(got, wanted, strict=True))


@pytest.mark.parametrize(
    ("preset", "wanted"),
    [
        ("sft", "another objective than E[R]"),
        ("vapo", "with a critic"),
        ("mt_grpo", "credit of turns, compared in groups"),
        ("grpo_tis", "samples of another policy"),
        ("rloo", "reward side"),
        ("gspo", "trajectory side"),
        ("dapo", "both sides"),
    ],
)
def test_family(preset, wanted):
    assert family(load_spec(preset)) == wanted
