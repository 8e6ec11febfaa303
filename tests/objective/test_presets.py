"""Every preset: what it says of itself, that it runs on any batch, and that one more is one file and no Python."""

from __future__ import annotations

import re
import runpy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from agentrl.errors import ConfigError
from agentrl.learner.learner import Learner
from agentrl.learner.settings import OptimizerSettings
from agentrl.objective import Batch, Credited, LossInputs, Objective, Scores, load_spec, preset_names
from agentrl.objective.catalogue import unbuilt_methods
from agentrl.objective.loading import spec_from_table
from agentrl.objective.reward_side import baseline
from agentrl.objective.spec import ABOUT, LIST_SLOTS, SIDES, SLOTS
from agentrl.trajectory import Group, Outcome, Trajectory
from tests.learner.conftest import make_model
from tests.learner.test_learner import make_groups
from tests.objective.play import KINDS, episode, groups_of

DOCS = Path(__file__).parents[2] / "docs"
OBJECTIVE_PAGE = DOCS / "objective.md"
READ_A_REFERENCE = {"ppo_adaptive_kl"}
READ_A_TEACHER = {"opd", "minillm", "grpo_opd"}
FINISHED_UPDATE = {"entropy": 0.3, "old_k3": 0.01, "old_abs": 0.02, "reference_k1": 0.1, "reference_k3": 0.1}


@pytest.mark.parametrize("name", preset_names())
def test_a_preset_says_what_it_is(name: str) -> None:
    spec = load_spec(name)
    assert spec.name == name
    assert spec.side in SIDES
    assert spec.formula.count("=") >= 1
    assert re.search(r"arXiv \d{4}\.\d{4,5}|Williams|agentrl|prime-rl|verl|TRL|ROLL|maximum likelihood", spec.source)
    assert all(len(text) > 3 for text in (spec.title, spec.addresses))
    assert spec.needs_reference == (name in READ_A_REFERENCE)
    assert spec.needs_teacher == (name in READ_A_TEACHER)


@pytest.mark.parametrize("name", preset_names())
def test_a_preset_reads_back_as_it_was(name: str) -> None:
    spec = load_spec(name)
    assert set(spec.as_dict()) == {*ABOUT, *SLOTS}
    assert spec_from_table(spec.as_dict()) == spec


def test_no_two_presets_are_the_same() -> None:
    tables = {name: {slot: str(load_spec(name).as_dict()[slot]) for slot in SLOTS} for name in preset_names()}
    names = sorted(tables)
    assert [(a, b) for a in names for b in names if a < b and tables[a] == tables[b]] == []


def test_methods_that_are_not_built_are_no_presets() -> None:
    methods = unbuilt_methods()
    assert len(methods) > 20
    assert not {method.name for method in methods} & set(preset_names())
    for method in methods:
        assert method.side in SIDES
        assert all((method.title, method.source, method.needs))


def random_groups(seed: int, *, size: int = 4) -> list[Group]:
    """Three groups of episodes of one to three turns: process and outcome parts that sum to 0 to 1, shared states, two
    segments, a cut episode, a void turn, a turn without tokens, a greedy episode; then one group of equal rewards."""
    rng = np.random.default_rng(seed)
    groups = []
    for g in range(4):
        members = tuple(_random_episode(rng, g, i, flat=g == 3) for i in range(size))
        greedy = _random_episode(rng, g, size, flat=False)
        groups.append(Group(str(g), f"t{g}", members, greedy=greedy))
    return groups


def _random_episode(rng: np.random.Generator, group: int, index: int, *, flat: bool) -> Trajectory:
    counts = [(int(rng.integers(0, 3)), int(rng.integers(1, 5)), 0.0) for _ in range(int(rng.integers(1, 4)))]
    if index == 1:
        counts.insert(1, (1, 0, 0.0))
    made = episode(
        counts,
        group=str(group),
        seed=int(rng.integers(1000)),
        new_segment_at=(1,) if index == 2 else (),
        outcome=Outcome.TRUNCATED_TURNS if index == 3 else Outcome.TERMINATED,
        logprobs=(-2 * rng.random(sum(acted for _, acted, _ in counts))).tolist(),
    )
    right = flat or index == 0 or (group > 0 and index > 1 and bool(rng.random() < 0.5))
    turns = []
    for k, turn in enumerate(made.turns):
        parts = {"step": 0.0 if right else float(rng.integers(0, 3)) / 10}
        if k == len(made.turns) - 1:
            parts["correct"] = float(right)
        turns.append(replace(turn, rewards=parts, state_id=f"s{k and rng.integers(2)}", void=index == 2 and k == 1))
    reward = sum(sum(turn.rewards.values()) for turn in turns)
    return replace(made, turns=tuple(turns), reward=reward, task_id=f"t{group}", reward_kinds=KINDS)


def random_scores(batch: Batch, objective: Objective, seed: int) -> Scores:
    rng = np.random.default_rng(seed)

    def near(sd: float) -> np.ndarray:
        gap = rng.normal(0, sd, batch.n_tokens)
        return np.where(batch.action_mask, batch.behavior_logprobs + gap, 0).astype(np.float32)

    values = rng.normal(0, 1, batch.n_tokens).astype(np.float32)
    return Scores(
        logprobs=near(0.01),
        reference=near(0.3) if objective.spec.needs_reference else None,
        teacher=near(0.3) if objective.spec.needs_teacher else None,
        values=values if objective.spec.needs_values else None,
    )


def inputs_of(credited: Credited, weights: np.ndarray, shift: torch.Tensor, values: torch.Tensor) -> LossInputs:
    """All loss tokens as one micro-batch; the policy has moved by `shift`, [N], from the step's start."""
    batch, scores = credited.batch, credited.scores
    at = np.flatnonzero(batch.loss_mask)

    def pick(x: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.asarray(x, np.float64)[at])

    assert scores.logprobs is not None
    where = torch.from_numpy(at)
    has_critic = scores.values is not None
    logprobs = pick(scores.logprobs) + shift[where]
    return LossInputs(
        logprobs=logprobs,
        old_logprobs=pick(scores.logprobs),
        behavior_logprobs=pick(batch.behavior_logprobs),
        advantages=pick(credited.advantages),
        weights=pick(weights),
        sequence_ids=torch.from_numpy(np.unique(batch.token_trajectory[at], return_inverse=True)[1]),
        turn_ids=torch.from_numpy(batch.turn_ids[at]),
        reference_logprobs=None if scores.reference is None else pick(scores.reference),
        entropies=-logprobs * logprobs.exp(),
        values=values[where] if has_critic else None,
        old_values=pick(scores.values) if scores.values is not None else None,
        returns=None if credited.returns is None else pick(credited.returns),
        columns={name: pick(column) for name, column in credited.columns.items()},
        memory=credited.memory,
    )


@pytest.mark.parametrize("name", preset_names())
def test_a_preset_runs_on_any_batch(name: str) -> None:
    """Two steps, so that what is remembered is read; an update far from the step's start, so that gates are at work."""
    objective = Objective(load_spec(name))
    memory = None
    for step in range(2):
        batch = objective.select(random_groups(step))
        credited = objective.credit(batch, random_scores(batch, objective, step), memory)
        assert np.isfinite(credited.advantages).all()
        assert (credited.advantages[~batch.loss_mask] == 0).all()
        assert np.any(credited.advantages != 0)
        weights = objective.token_weights(batch)
        assert (weights[~batch.loss_mask] == 0).all()
        shift = torch.from_numpy(np.random.default_rng(step).normal(0, 0.3, batch.n_tokens)).requires_grad_()
        values = torch.zeros(batch.n_tokens, dtype=torch.float64, requires_grad=True)
        out = objective.loss(inputs_of(credited, weights, shift, values))
        out.loss.backward()  # type: ignore[no-untyped-call]
        assert torch.isfinite(out.loss)
        assert shift.grad is not None
        assert torch.isfinite(shift.grad).all()
        assert shift.grad.abs().sum() > 0
        assert (shift.grad[torch.from_numpy(~batch.loss_mask)] == 0).all()
        assert (values.grad is not None and bool((values.grad != 0).any())) == objective.spec.needs_values
        memory = objective.remember(credited, FINISHED_UPDATE)


@pytest.mark.parametrize("name", preset_names())
def test_a_preset_takes_an_empty_batch(name: str) -> None:
    objective = Objective(load_spec(name))
    batch = objective.select([])
    none = np.zeros(0, np.float32)
    credited = objective.credit(batch, Scores(none, none, none, none))
    assert len(credited.advantages) == len(objective.token_weights(batch)) == 0


@pytest.mark.parametrize("name", ["turn_rloo", "rloo", "reinforce"])
def test_the_first_updates_gradient_is_the_policy_gradient(name: str) -> None:
    """At ratio 1 a gate changes nothing: d loss / d log pi(a_t) = -A_t / trajectories."""
    objective = Objective(load_spec(name))
    batch = objective.select(random_groups(0))
    credited = objective.credit(batch, random_scores(batch, objective, 0))
    shift = torch.zeros(batch.n_tokens, dtype=torch.float64, requires_grad=True)
    objective.loss(inputs_of(credited, objective.token_weights(batch), shift, shift)).loss.backward()  # type: ignore[no-untyped-call]
    expected = -credited.advantages / np.count_nonzero(batch.loss_counts)
    np.testing.assert_allclose(shift.grad, expected, atol=1e-6)


def example(language: str, about: str) -> str:
    """The code block of docs/objective.md that holds `about`."""
    blocks = re.findall(rf"```{language}\n(.*?)```", OBJECTIVE_PAGE.read_text(encoding="utf-8"), re.DOTALL)
    return next(block for block in blocks if about in block)


def test_a_method_is_one_file_and_trains(tmp_path: Path) -> None:
    """Adding a method whose pieces exist takes no Python: the file of the docs, anywhere, given by its path."""
    path = tmp_path / "cautious.toml"
    path.write_text(example("toml", 'name = "cautious"'), encoding="utf-8")
    spec = load_spec(str(path))
    assert spec.name == "cautious"
    model = make_model()
    before = [p.detach().clone() for p in model.parameters()]
    learner = Learner(model, Objective(spec), OptimizerSettings(lr=0.01), total_updates=2, epochs=2)
    batch = learner.objective.select(make_groups(0))
    result = learner.update(learner.objective.credit(batch, learner.score(batch)), step=0)
    assert result["updates"] == 2
    assert np.isfinite(result["loss"])
    assert any(not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_a_piece_is_one_class_and_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """The class of the docs, in its slot's table, is chosen by name; nothing else is told of it."""
    names = dict(vars(baseline))
    exec(example("python", "class GroupMedian"), names)
    monkeypatch.setitem(baseline.BASELINES, "group_median", names["GroupMedian"])  # type: ignore[arg-type]
    objective = Objective(load_spec("dr_grpo", {"baseline": "group_median"}))
    credited = objective.credit(objective.select(groups_of([1, 0, 0], [2, 4])), Scores())
    np.testing.assert_allclose(credited.advantages[credited.batch.loss_mask], [1] * 3 + [0] * 6 + [-1] * 3 + [1] * 3)
    with pytest.raises(ConfigError, match="group_size is 1"):
        objective.spec.check(group_size=1)


def test_the_page_of_components_is_what_the_classes_say() -> None:
    written = runpy.run_path(str(DOCS / "components.py"))["page"]()
    assert (DOCS / "components.md").read_text(encoding="utf-8") == written, "run: python docs/components.py"


def test_the_page_of_the_objective_names_every_component_and_preset() -> None:
    page = OBJECTIVE_PAGE.read_text(encoding="utf-8")
    rows = {row.split("|")[2].strip(): row for row in page.splitlines() if row.count("|") == 5}
    for slot, table in SLOTS.items():
        row = rows[f"`{slot}` (list)" if slot in LIST_SLOTS else f"`{slot}`"]
        assert re.findall(r"`(\w+)`", row.split("|")[4]) == list(table), slot
    for name in preset_names():
        assert re.search(rf"^\| `{name}`( \*)? \| {re.escape(load_spec(name).title)} \|", page, re.MULTILINE), name


def test_the_page_of_the_objective_sets_what_there_is() -> None:
    chosen = re.findall(r"--set '?objective\.(\w+)", OBJECTIVE_PAGE.read_text(encoding="utf-8"))
    assert set(chosen) <= {"preset", *SLOTS}
