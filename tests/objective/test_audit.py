"""The audit: its enumeration against a slow twin, estimators that it must find wrong, and the numbers on its page."""

from __future__ import annotations

import itertools
import json
import runpy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from agentrl.objective import Objective, load_spec, preset_names
from agentrl.objective.audit import report
from agentrl.objective.audit.audit import Auditor
from agentrl.objective.audit.blame import Blame
from agentrl.objective.audit.compare import compare
from agentrl.objective.audit.draws import Draw, Setting, forest, groups_of, one_task
from agentrl.objective.audit.measure import Measured, estimate, measure
from agentrl.objective.audit.pieces import pieces, specs
from agentrl.objective.audit.policy import Policy
from agentrl.objective.audit.scoring import true_gradient
from agentrl.objective.audit.settings import branched, cast, standard
from agentrl.objective.audit.tables import as_plain, audit_table, unit_row
from agentrl.objective.audit.verdict import Finding, Verdict, judge
from agentrl.objective.audit.worlds import DETOUR, EASY, ERRAND, HARD, SEARCH
from agentrl.objective.reward_side.baseline import NoBaseline
from agentrl.objective.reward_side.credit import RewardToGoTurn
from agentrl.trajectory import Group
from tests.objective.audits import (
    CountsThePast,
    MeanOverRows,
    MissesItsOwnReward,
    NextState,
    OwnFuture,
    OwnPast,
    ShiftedByAToken,
    fair,
    settings,
    slow_expected_gradient,
)

WORLDS = (ERRAND, DETOUR, EASY, HARD, SEARCH)
DOCS = Path(__file__).parent.parent.parent / "docs"
TURN = {"name": "rtg_turn", "gamma": 1.0}


def verdict_of(spec, of=None, critic="exact"):
    return judge(compare(spec, of or settings(), critic=critic))


@pytest.mark.parametrize("world", WORLDS, ids=lambda world: world.name)
def test_chances_returns_and_values_of_a_world_agree(world):
    of = cast(world)
    assert of.chances.sum() == pytest.approx(1, abs=1e-12)
    returns = np.array([t.reward for t in of.trajectories])
    assert returns.min() >= 0
    assert returns.max() <= 1 + 1e-12
    assert of.policies.now.values[world.start, ()] == pytest.approx(of.chances @ returns, abs=1e-12)


def test_the_value_of_a_state_by_hand():
    """EASY from "seen": 0.5 for the careless answer, 0.7 for the other, by the softmax of the two logits."""
    policy = cast(EASY).policies.now
    start = policy.starts["seen", ()]
    careless = 1 / (1 + np.exp(policy.logits[start + 1] - policy.logits[start]))
    assert policy.values["seen", ()] == pytest.approx(0.5 * careless + 0.7 * (1 - careless), abs=1e-12)
    assert policy.values["seen", (6,)] == pytest.approx(0.7)


@pytest.mark.parametrize("world", WORLDS, ids=lambda world: world.name)
def test_the_true_gradient_is_that_of_the_value_by_finite_differences(world):
    of, h = cast(world), 1e-6
    logits = of.policies.now.logits

    def value(at):
        return Policy(world, at).values[world.start, ()]

    slopes = [(value(logits + h * e) - value(logits - h * e)) / (2 * h) for e in np.eye(len(logits))]
    exact = of.gradient([t.reward for t in of.trajectories])
    assert exact == pytest.approx(slopes, abs=1e-8)
    assert np.linalg.norm(exact) > 0.05


def test_the_worlds_have_what_the_audit_is_to_show():
    errand, detour = cast(ERRAND), cast(DETOUR)
    turns = [turn for t in errand.trajectories for turn in t.turns]
    assert {len(t.turns) for t in errand.trajectories} == {1, 2, 3}
    assert {len(t.segments) for t in errand.trajectories} == {1, 2, 3}
    assert {turn.span.stop - turn.span.start for turn in turns} == {1, 2, 3}
    assert any(turn.void for turn in turns)
    assert any(t.outcome.truncated for t in errand.trajectories)
    assert {name for turn in turns for name in turn.rewards} == {"step", "correct"}
    depths = {k for t in detour.trajectories for k, turn in enumerate(t.turns) if turn.state_id == "gate"}
    assert depths == {1, 2, 3}
    assert not any(len({turn.state_id for turn in t.turns}) < len(t.turns) for t in detour.trajectories)
    assert any(len({turn.state_id for turn in t.turns}) < len(t.turns) for t in cast(SEARCH).trajectories)


@pytest.mark.parametrize(
    "spec",
    [fair(), fair(credit=TURN, ratio="none"), load_spec("grpo"), load_spec("gigpo"), load_spec("reinforce_pp")],
    ids=lambda spec: f"{spec.name} {type(spec.credit).__name__}",
)
def test_the_expected_gradient_is_that_of_the_slow_twin(spec):
    of = cast(EASY)
    got = measure(Objective(replace(spec, regularize=())), one_task(of, 2)).gradient
    assert got == pytest.approx(slow_expected_gradient(spec, of, 2), abs=1e-12)


def test_a_group_s_chance_is_that_of_all_its_orders():
    of = cast(HARD)
    chances = {tuple(t.seed for t in group.trajectories): chance for chance, group in groups_of(of, 3)}
    assert sum(chances.values()) == pytest.approx(1, abs=1e-12)
    ordered = {}
    for members in itertools.product(range(len(of.episodes)), repeat=3):
        key = tuple(sorted(members))
        ordered[key] = ordered.get(key, 0.0) + float(np.prod(of.chances[list(members)]))
    assert chances == pytest.approx(ordered, abs=1e-14)


def test_every_branch_of_a_tree_is_distributed_like_an_episode():
    of = cast(ERRAND)
    for trees, branches in ((1, 3), (2, 2)):
        seen = np.zeros(len(of.episodes))
        for draw in forest(of, trees, branches).draws:
            (group,) = draw.groups
            assert len(group.trajectories) == trees * branches
            assert len({t.turns[0].node_id for t in group.trajectories}) == trees
            for t in group.trajectories:
                seen[t.seed] += draw.chance / (trees * branches)
        assert seen == pytest.approx(of.chances, abs=1e-12)


RANDOM = ("clip_cov",)  # whose gate picks tokens by chance, seeded by where they stand


@pytest.mark.parametrize("preset", [name for name in preset_names() if name not in RANDOM])
def test_the_order_of_a_group_s_members_means_nothing(preset):
    """What lets the audit draw each multiset once."""
    spec = replace(load_spec(preset), regularize=())
    for setting in settings():
        some = setting.draws[3 :: max(len(setting.draws) // 12, 1)]
        turned = [Draw(d.chance, tuple(replace(g, trajectories=g.trajectories[::-1]) for g in d.groups)) for d in some]
        as_drawn, reversed_ = (
            estimate(Objective(spec), Setting(setting.name, setting.casts, tuple(draws))) for draws in (some, turned)
        )
        assert as_drawn == pytest.approx(reversed_, abs=1e-12)


@pytest.mark.parametrize("preset", ["gspo", "topr", "vapo", "gmpo", "kl_cov", "mt_grpo"])
def test_all_batches_at_once_are_each_batch_alone(preset):
    spec = replace(load_spec(preset), regularize=())
    for setting in settings():
        few = Setting(setting.name, setting.casts, setting.draws[::17])
        at_once, alone = (estimate(Objective(spec), few, at_once=together) for together in (True, False))
        assert np.abs(at_once).max() > 1e-6
        assert at_once == pytest.approx(alone, abs=1e-15)


def test_the_variance_is_the_trace_of_the_covariance():
    setting = settings()[0]
    chances = [draw.chance for draw in setting.draws]
    rows = estimate(Objective(fair()), setting)
    covariance = np.cov(rows.T, aweights=chances, ddof=0)
    assert measure(Objective(fair()), setting).variance == pytest.approx(np.trace(covariance), rel=1e-9)


def test_a_finding_by_hand():
    """True gradient (3, 4), expected (6, 8) and (4, 3): cosine 24/25, sine 7/25."""
    true = np.array([3.0, 4.0])
    twice = Finding.of("s", Measured(2 * true, 50.0), true)
    assert (twice.error, twice.scale, twice.cosine) == (1, 2, 1)
    assert twice.residual == pytest.approx(0, abs=1e-15)
    assert twice.noise == 50 / 100
    turned = Finding.of("s", Measured(np.array([4.0, 3.0]), 24.0**2), true)
    assert turned.cosine == pytest.approx(24 / 25)
    assert turned.residual == pytest.approx(7 / 25)
    assert turned.scale == pytest.approx(24 / 25)
    assert turned.error == pytest.approx(2**0.5 / 5)
    assert turned.noise == pytest.approx(25.0)
    away = Finding.of("s", Measured(-true, 1.0), true)
    assert (away.cosine, away.scale, away.noise) == (-1, -1, float("inf"))
    nothing = Finding.of("s", Measured(0 * true, 0.0), true)
    assert (nothing.cosine, nothing.residual, nothing.error) == (0, 1, 1)


def test_a_verdict_is_over_all_settings():
    def finding(scale, residual):
        return Finding("s", abs(1 - scale) + residual, residual, 1.0, scale, 1.0)

    assert judge([finding(1, 0), finding(1, 0)]) is Verdict.UNBIASED
    assert judge([finding(1, 0), finding(0.5, 0)]) is Verdict.SCALED
    assert judge([finding(1, 0), finding(1, 1e-8)]) is Verdict.BIASED
    assert judge([finding(-0.5, 0)]) is Verdict.BIASED


@pytest.mark.parametrize("credit", ["outcome_broadcast", TURN, {"name": "rtg_token", "gamma": 1.0}])
@pytest.mark.parametrize("baseline", ["none", "leave_one_out"])
def test_rloo_and_return_to_go_are_unbiased_to_rounding(credit, baseline):
    for finding in compare(fair(credit=credit, baseline=baseline), settings()):
        assert finding.error < 1e-12


WRONG = {
    "a reward that its own action gets none of": {"credit": MissesItsOwnReward()},
    "advantages one token late": {"credit": ShiftedByAToken()},
    "a baseline that holds the action's own future": {"credit": RewardToGoTurn(), "baseline": OwnFuture()},
    "a baseline that looks at the next state": {"credit": RewardToGoTurn(), "baseline": NextState()},
    "a mean that counts segments": {"baseline": MeanOverRows()},
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_estimator_is_found_biased(name):
    spec = replace(fair(), **{"baseline": NoBaseline(), **WRONG[name]})
    found = compare(spec, settings())
    assert judge(found) is Verdict.BIASED
    assert max(f.residual for f in found) > 1e-2


@pytest.mark.parametrize("name", [name for name in WRONG if "baseline" in WRONG[name] and "credit" in WRONG[name]])
def test_a_wrong_baseline_is_named_as_the_cause(name):
    (cause,) = Blame(settings()).causes(replace(fair(), **WRONG[name]))
    assert f"baseline {type(WRONG[name]['baseline']).__name__}" in cause


@pytest.mark.parametrize(
    "choices",
    [
        {"credit": CountsThePast(), "baseline": NoBaseline()},
        {"credit": RewardToGoTurn(), "baseline": OwnPast()},
    ],
    ids=["credit", "baseline"],
)
def test_the_past_adds_noise_and_no_bias(choices):
    spec = replace(fair(), **choices)
    assert verdict_of(spec) is Verdict.UNBIASED
    plain = compare(fair(credit=TURN, baseline="none"), settings())
    assert compare(spec, settings())[1].noise != pytest.approx(plain[1].noise)


def test_the_group_s_mean_scales_and_its_std_turns():
    found = compare(fair(baseline="group_mean"), settings())
    assert [f.scale for f in found] == pytest.approx([1 / 2, 1 / 2, 1 / 2])
    assert judge(found) is Verdict.SCALED
    batch = compare(fair(baseline="batch_mean"), settings())
    assert [f.scale for f in batch] == pytest.approx([1 / 2, 1 / 2, 3 / 4])
    assert verdict_of(fair(scale="group_std")) is Verdict.BIASED


def test_std_weighs_tasks_by_difficulty():
    """With groups of two, R_i - mean is +-gap/2 and std gap/sqrt 2: every mixed group weighs the same. The share that
    each task has in the expected gradient then is not its share in the true one."""
    setting = settings()[2]
    parts = [len(c.policies.now.logits) for c in setting.casts]

    def shares(gradient):
        squares = np.split(gradient**2, [parts[0]])
        return squares[0].sum() / (gradient @ gradient)

    true = shares(true_gradient(fair(), setting))
    assert shares(measure(Objective(fair()), setting).gradient) == pytest.approx(true)
    assert shares(measure(Objective(fair(scale="group_std")), setting).gradient) > 1.5 * true
    batch = shares(measure(Objective(fair(scale="batch_std")), setting).gradient)
    assert abs(batch - true) < 0.2 * true


def test_a_penalty_in_the_reward_is_part_of_what_is_maximised():
    penalised = fair(kl_in_reward={"name": "k1", "beta": 0.3})
    assert verdict_of(penalised) is Verdict.UNBIASED
    setting = settings()[0]
    assert true_gradient(penalised, setting) != pytest.approx(true_gradient(fair(), setting), abs=1e-2)


def test_the_penalised_gradient_is_that_of_the_return_less_the_kl():
    """By finite differences of sum_e p(e) (R(e) - beta (log p - log p_ref))."""
    of, beta, h = cast(EASY), 0.3, 1e-6
    returns = np.array([t.reward for t in of.trajectories])
    reference = np.array([x.sum() for x in of.columns["reference"]])
    answers = np.log(of.chances) - np.array([x.sum() for x in of.columns["now"]])

    def value(logits):
        policy = Policy(EASY, logits)
        own = np.array([sum(policy.logprobs(s.state, s.action).sum() for s in e) for e in of.episodes])
        return np.exp(own + answers) @ (returns - beta * (own - reference))

    logits = of.policies.now.logits
    slopes = [(value(logits + h * e) - value(logits - h * e)) / (2 * h) for e in np.eye(len(logits))]
    spec = fair(kl_in_reward={"name": "k1", "beta": beta})
    assert true_gradient(spec, one_task(of, 2)) == pytest.approx(slopes, abs=1e-8)


def test_a_regularizer_is_left_out():
    plain, regularized = (compare(fair(regularize=r), settings()) for r in ([], [{"name": "k3", "coef": 0.5}]))
    assert plain == regularized


def test_a_shape_of_one_trajectory_is_part_of_what_is_maximised_and_one_of_the_group_is_not():
    thresholded = fair(shape=[{"name": "threshold", "at": 0.8}], baseline="none")
    assert verdict_of(thresholded) is Verdict.UNBIASED
    setting = settings()[0]
    assert true_gradient(thresholded, setting) != pytest.approx(true_gradient(fair(), setting), abs=1e-2)
    per_group = fair(shape=["per_reward_std"])
    assert true_gradient(per_group, setting) == pytest.approx(true_gradient(fair(), setting), abs=1e-15)
    assert verdict_of(per_group) is Verdict.BIASED


@pytest.mark.parametrize(
    ("lam", "critic", "verdict"),
    [
        (1.0, "wrong", Verdict.UNBIASED),
        (0.95, "exact", Verdict.UNBIASED),
        (0.0, "exact", Verdict.UNBIASED),
        (0.95, "wrong", Verdict.BIASED),
    ],
)
@pytest.mark.parametrize("credit", ["gae_token", "gae_turn"])
def test_a_critic_that_errs_biases_lambda_below_one(credit, lam, critic, verdict):
    assert verdict_of(fair(credit={"name": credit, "lam": lam}, baseline="value"), critic=critic) is verdict


def test_values_of_fresh_rollouts_may_be_noisy():
    """Each turn's value is right by +0.4 or -0.4 with equal chance: VinePPO stays unbiased, at more variance."""
    of = cast(EASY)
    draws = []
    for chance, trajectory in zip(of.chances, of.trajectories, strict=True):
        for signs in itertools.product((-0.4, 0.4), repeat=len(trajectory.turns)):
            turns = tuple(replace(t, value=t.value + s) for t, s in zip(trajectory.turns, signs, strict=True))
            group = Group("g", of.name, (replace(trajectory, turns=turns),))
            draws.append(Draw(chance / 2 ** len(signs), (group,)))
    spec = fair(credit="mc_turn", baseline="mc_value")
    noisy, exact = (compare(spec, [s]) for s in (Setting("noisy", (of,), tuple(draws)), one_task(of, 1)))
    assert judge(noisy) is judge(exact) is Verdict.UNBIASED
    assert noisy[0].noise > 1.2 * exact[0].noise


def test_off_policy_only_weights_of_whole_trajectories_are_right():
    of = standard((2,), off_policy=True)

    def correction(**mismatch):
        return verdict_of(fair(mismatch=[mismatch] if mismatch else []), of)

    assert correction() is Verdict.BIASED
    assert correction(name="token_tis", cap=1e6) is Verdict.BIASED
    assert correction(name="sequence_tis", cap=1e6) is Verdict.UNBIASED
    assert correction(name="sequence_tis", cap=2.0) is Verdict.BIASED
    whole = fair(anchor="behavior", ratio="sequence_product", aggregate="seq_mean_token_mean")
    assert verdict_of(whole, of) is Verdict.UNBIASED


def test_branches_are_no_independent_samples():
    assert verdict_of(fair(credit="tree", baseline="none"), branched()) is Verdict.UNBIASED
    assert verdict_of(fair(credit="tree"), branched()) is Verdict.BIASED


def test_what_leaves_the_frame_gets_no_verdict():
    auditor = Auditor((2,), settings=settings())
    for name in ("sft", "opd", "grpo_opd"):
        (row,) = auditor.audit(name, load_spec(name))
        assert (row.verdict, row.findings) == (Verdict.OTHER, ())
        assert row.why


def test_the_causes_of_a_bias_are_found():
    blame = Blame(settings())
    causes = blame.causes(load_spec("grpo"))
    assert [cause.partition(" ")[0] for cause in causes] == ["scale", "aggregate"]
    assert "group_std" in causes[0]
    assert "seq_mean_token_mean" in causes[1]
    (cause,) = blame.causes(load_spec("dr_grpo", {"ratio": "sequence_geo", "aggregate": "seq_mean_token_mean"}))
    assert "ratio sequence_geo" in cause
    (cause,) = blame.causes(fair(credit={"name": "rtg_turn", "gamma": 0.9}))
    assert "discounts by gamma 0.9" in cause


def test_rows_as_text_by_hand():
    row = {
        "name": "x",
        "critic": "wrong",
        "verdict": "biased",
        "why": "because",
        "residual": [0.02, 0.1234, 0.0],
        "cosine": [0.9, 0.8, 1.0],
        "variance": [2.0, 0.5, 8.0],
    }
    assert report.brief(row) == ("x, wrong critic", "biased", "12%", "0.800", "2.00", "because")
    assert report.brief({**row, "variance": [1.0, None, 1.0]})[4] == "-"
    assert report.brief({**row, "residual": [], "critic": None})[:3] == ("x", "biased", "-")
    table = {"settings": ["a", "b", "c"], "rows": [row, {**row, "verdict": "scaled", "critic": None}]}
    assert report.markdown(table, columns=("verdict", "error", "cosine", "variance")).splitlines() == [
        "| | verdict | error | cosine | variance |",
        "|---|---|---|---|---|",
        "| x, wrong critic | biased | 2% 12% 0 | 0.800 | 2.00 0.50 8.00 |",
        "| x | **scaled** | 2% 12% 0 | 0.800 | 2.00 0.50 8.00 |",
    ]


RECORD = report.recorded()
PINNED = ("rloo", "reinforce", "dr_grpo", "grpo", "mt_grpo", "gigpo", "ppo", "dapo")
PINNED_PIECES = ("rtg_turn, leave_one_out", "rtg_turn, turn_mean", "rtg_turn, state_leave_one_out")
REMAKE = "python docs/audit.py writes the page and the record anew"


def test_every_preset_is_on_the_page():
    assert list(dict.fromkeys(row["name"] for row in RECORD["presets"]["rows"])) == preset_names(), REMAKE


def test_the_page_says_what_the_record_says():
    page = runpy.run_path(str(DOCS / "audit.py"))["page"]
    assert (DOCS / "audit.md").read_text(encoding="utf-8") == page(RECORD), REMAKE


def test_the_record_is_what_an_audit_finds_now():
    auditor = Auditor((2, 3), find_causes=False)
    unit = unit_row((2, 3))
    entries = {
        "presets": [(name, load_spec(name)) for name in PINNED],
        "pieces": [(name, spec) for name, spec in specs({n: pieces()[n] for n in PINNED_PIECES})],
    }
    for table, some in entries.items():
        made = json.loads(json.dumps(as_plain([audit_table(table, auditor, some, lambda name: None, unit)])))
        assert made[table]["settings"] == RECORD[table]["settings"]
        recorded = {report.label(row): row for row in RECORD[table]["rows"]}
        for row in made[table]["rows"]:
            wanted = recorded[report.label(row)]
            assert row["verdict"] == wanted["verdict"], REMAKE
            for column in ("error", "residual", "cosine", "scale", "variance"):
                assert row[column] == pytest.approx(wanted[column], rel=1e-4, abs=1e-9), (row["name"], column, REMAKE)


def test_acceptance_rloo_and_return_to_go_with_leave_one_out_have_no_bias_on_the_page():
    rows = {row["name"]: row for table in ("presets", "pieces") for row in RECORD[table]["rows"]}
    for name in ("rloo", "rtg_turn, leave_one_out"):
        assert rows[name]["verdict"] == "unbiased"
        assert rows[name]["error"] == [0] * 5
    for name in ("grpo", "mt_grpo", "gigpo", "rtg_turn, turn_mean", "scale group_std"):
        assert rows[name]["verdict"] == "biased"
        assert max(rows[name]["residual"]) > 0.05
