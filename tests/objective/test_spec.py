"""Presets, overrides, and what is refused and why."""

from __future__ import annotations

import subprocess
import sys

import pytest

from agentrl.errors import ConfigError, UnknownNameError
from agentrl.objective import LossInputs, Scores, load_spec, preset_names
from agentrl.objective.loading import spec_from_table
from agentrl.objective.spec import ABOUT, SLOTS
from tests.objective.play import groups_of, objective, tokens_loss


def test_the_presets_and_what_they_say_of_themselves():
    assert set(preset_names()) >= {"reinforce", "rloo", "grpo", "dr_grpo"}
    for name in preset_names():
        spec = load_spec(name)
        assert spec.name == name
        assert all((spec.title, spec.formula, spec.source))
        assert set(spec.as_dict()) == {*ABOUT, *SLOTS}
        assert spec_from_table(spec.as_dict()) == spec


@pytest.mark.parametrize(
    ("preset", "choices"),
    [
        ("reinforce", "rtg_token batch_mean none none none seq_mean_token_sum"),
        ("rloo", "outcome_broadcast leave_one_out none none none seq_mean_token_sum"),
        ("grpo", "outcome_broadcast group_mean group_std token clip seq_mean_token_mean"),
        ("dr_grpo", "outcome_broadcast group_mean none token clip seq_sum_const"),
        ("gspo", "outcome_broadcast group_mean group_std sequence_geo clip seq_mean_token_mean"),
        ("cispo", "outcome_broadcast group_mean group_std token detached_clip token_mean"),
        ("ppo", "gae_token value whiten token dual_clip token_mean"),
        ("opo", "outcome_broadcast len_weighted none none none token_mean"),
        ("maxrl", "outcome_broadcast group_mean group_mean token clip token_mean"),
        ("topr", "outcome_broadcast batch_mean none sequence_product positive_free seq_mean_token_sum"),
        ("turn_ppo", "gae_turn value whiten token clip token_mean"),
        ("peer_credit", "state_pooled state_leave_one_out none token clip seq_mean_token_sum"),
    ],
)
def test_presets_choose_their_methods_components(preset, choices):
    table = load_spec(preset).as_dict()
    slots = ("credit", "baseline", "scale", "ratio", "gate", "aggregate")
    assert " ".join(table[slot]["name"] for slot in slots) == choices
    assert not load_spec(preset).needs_reference


def test_overrides_replace_a_component_or_change_its_parameters():
    assert load_spec("grpo", {"gate": {"high": 0.28}}).as_dict()["gate"] == {"name": "clip", "low": 0.2, "high": 0.28}
    assert load_spec("grpo", {"gate": "none"}).as_dict()["gate"] == {"name": "none"}
    assert load_spec("grpo", {"gate": {"name": "clip", "low": 10}}).as_dict()["gate"]["high"] == 0.2
    assert load_spec("grpo", {"regularize": {"coef": 0.04}}).as_dict()["regularize"] == [{"name": "k3", "coef": 0.04}]
    assert load_spec("grpo", {"regularize": "none"}).regularize == ()
    both = [{"name": "k3", "coef": 0.1}, {"name": "k2", "coef": 0.1}]
    assert load_spec("grpo", {"regularize": both}).as_dict()["regularize"] == both
    assert load_spec("grpo", {"filters": "zero_variance_drop"}).as_dict()["filters"] == [
        {"name": "zero_variance_drop", "refill": 0}
    ]
    assert load_spec("grpo").as_dict()["gate"]["high"] == 0.2


@pytest.mark.parametrize(
    ("preset", "overrides", "error", "says"),
    [
        ("grop", {}, UnknownNameError, "did you mean 'grpo'?"),
        ("grpo", {"gates": "clip"}, UnknownNameError, "did you mean 'gate'?"),
        ("grpo", {"gate": "clp"}, UnknownNameError, "no objective.gate 'clp'; did you mean 'clip'?"),
        ("grpo", {"gate": {"hihg": 0.3}}, ConfigError, "no parameter 'hihg'; did you mean 'high'?"),
        ("grpo", {"gate": {"high": "0.3"}}, ConfigError, "high: Input should be a valid number, got '0.3'"),
        ("grpo", {"gate": {"high": True}}, ConfigError, "valid number"),
        ("grpo", {"gate": {"low": -0.1}}, ConfigError, "low must be at least 0, got -0.1"),
        ("grpo", {"gate": {"low": float("nan")}}, ConfigError, "wanted a finite number, got nan"),
        ("grpo", {"gate": 3}, ConfigError, "wants a name or"),
        ("grpo", {"aggregate": "seq_sum_const"}, ConfigError, "needs the parameter 'length'"),
        ("dr_grpo", {"aggregate": {"length": 0}}, ConfigError, "length must be at least 1"),
        ("reinforce", {"credit": {"gamma": 1.5}}, ConfigError, r"gamma must be in \[0, 1\]"),
        ("reinforce", {"regularize": {"coef": 0.1}}, ConfigError, "give the name too"),
        ("rloo", {"kl_in_reward": {"beta": -1.0}}, ConfigError, "beta must be at least 0"),
        ("grpo", {"mismatch": {"name": "token_tis", "cap": 0.5}}, ConfigError, "cap must be at least 1"),
        ("grpo", {"scale": {"eps": 0.0}}, ConfigError, "eps must be at least"),
    ],
)
def test_bad_settings_are_refused(preset, overrides, error, says):
    with pytest.raises(error, match=says) as caught:
        load_spec(preset, overrides)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("preset", "overrides", "says"),
    [
        ("grpo", {"ratio": "none"}, "gate bounds a ratio and there is none"),
        ("grpo", {"credit": "rtg_turn"}, "spread of whole returns"),
        ("reinforce", {"scale": "batch_std"}, "spread of whole returns"),
        ("grpo", {"baseline": "batch_mean"}, "a group of equal rewards is divided by 0"),
        ("grpo", {"baseline": "none"}, "a group of equal rewards is divided by 0"),
        ("rloo", {"scale": "batch_std", "baseline": "none"}, "batch of equal rewards has std 0"),
        ("dr_grpo", {"ratio": "sequence_product"}, "weighs the trajectory by its length"),
        (
            "dr_grpo",
            {"ratio": "sequence_product", "credit": "rtg_turn", "aggregate": "seq_mean_token_mean"},
            "cannot weigh advantages that differ within it",
        ),
        ("gspo", {"terms": "teacher"}, "cannot weigh advantages that differ within it"),
        ("gtpo_turn", {"scale": "turn_std"}, "spread among the peers of a turn"),
        ("ppo", {"critic": "none"}, "there is no critic"),
        ("grpo", {"critic": "token_head"}, "a critic whose values nothing reads"),
        ("ppo", {"critic": "turn_head"}, "a value is read at every token"),
        ("ppo", {"critic": "turn_head", "credit": "rtg_token"}, "a value is read at every token"),
        ("rae", {"scale": "batch_std"}, "batch of equal rewards has std 0"),
        ("passk", {"credit": "rtg_turn"}, "baseline is one of whole returns"),
        ("gdpo", {"baseline": "batch_mean"}, "divides rewards by their spread in the group"),
        ("rloo", {"kl_in_reward": [{"name": "adaptive_k1"}, {"name": "adaptive_k1"}]}, "memory under one key"),
        ("gmpo", {"ratio": "sequence_geo"}, "bounds each token's own ratio"),
        ("topr", {"ratio": "token"}, "bounds the ratio of the whole trajectory"),
        ("dppo", {"mismatch": "token_tis"}, "count the sampler twice"),
        ("grpo", {"mismatch": ["token_tis", "sequence_mask"]}, "two mismatch corrections"),
        ("ppo", {"credit": {"gamma": 0.9}}, "credit.gamma and critic.gamma to the same number"),
        ("rloo", {"anchor": "behavior"}, "and there is none"),
        ("ppo", {"ratio": "turn"}, "cannot weigh advantages that differ within it"),
        ("kimi_pmd", {"ratio": "sequence_geo"}, "bounds the ratio of the whole trajectory"),
        ("grpo", {"baseline": "peer_returns"}, "not centred there"),
        ("rloo", {"credit": {"parts": "none"}}, "no reward is credited"),
        ("opd", {"terms": "teacher"}, "teacher is counted twice"),
        ("kl_cov", {"regularize": [{"name": "kl_cov"}, {"name": "kl_cov"}]}, "prepare the same column"),
        ("vespo", {"mismatch": "sequence_tis"}, "its gate weighs whole trajectories already"),
    ],
)
def test_unsound_combinations_are_refused_with_the_reason(preset, overrides, says):
    with pytest.raises(ConfigError, match=f"objective '{preset}' is unsound: .*{says}"):
        load_spec(preset, overrides)


@pytest.mark.parametrize(
    ("preset", "overrides", "run", "says"),
    [
        ("grpo", {}, {"group_size": 1}, "rollout.group_size is 1"),
        ("dr_grpo", {}, {"group_size": 1}, "rollout.group_size is 1"),
        ("rloo", {}, {"group_size": 1}, "rollout.group_size is 1"),
        ("reinforce", {"filters": "zero_variance_drop"}, {"group_size": 1}, "drops every group"),
        ("rloo", {}, {"group_size": 4, "updates_per_batch": 2}, "right for the first of 2 updates only"),
        ("grpo", {"regularize": {"coef": 0.1}}, {"group_size": 4, "has_reference": False}, "needs a frozen reference"),
        ("rloo", {"kl_in_reward": {"beta": 0.1}}, {"group_size": 4, "has_reference": False}, "needs a frozen"),
        ("opd", {}, {"group_size": 4}, "the learner has no teacher"),
        ("grpo", {}, {"group_size": 4, "has_teacher": True}, "nothing in it reads a teacher"),
        ("reinforce", {"terms": "tree_intra"}, {"group_size": 1}, "one of its terms compares with peers"),
        ("starpo_s", {}, {"group_size": 1}, "drops every group of 1"),
    ],
)
def test_runs_an_objective_cannot_be_right_in_are_refused(preset, overrides, run, says):
    with pytest.raises(ConfigError, match=says):
        load_spec(preset, overrides).check(**run)


def test_sound_runs_pass():
    for preset in preset_names():
        spec = load_spec(preset)
        spec.check(group_size=2, has_reference=spec.needs_reference, has_teacher=spec.needs_teacher)
    load_spec("reinforce").check(group_size=1)
    load_spec("grpo").check(group_size=8, updates_per_batch=4)


def test_what_an_objective_needs():
    assert objective("grpo", regularize={"coef": 0.1}).spec.needs_reference
    kl = objective("rloo", kl_in_reward={"beta": 0.1})
    assert kl.spec.needs_reference
    assert kl.spec.needs_logprobs
    assert not objective("grpo", regularize={"coef": 0.1}).spec.needs_logprobs
    assert objective("grpo", ratio="sequence_product").spec.needs_whole_trajectories
    assert not objective("grpo").spec.needs_whole_trajectories


def test_a_missing_reference_is_told_where_it_is_read():
    inputs: LossInputs = tokens_loss([-1], [-1], [1])
    for name in ("k2", "k3"):
        with pytest.raises(ConfigError, match="needs log-probs of a reference"):
            objective("grpo", regularize={"name": name, "coef": 0.1}).loss(inputs)
    method = objective("rloo", kl_in_reward={"beta": 0.1})
    batch = method.select(groups_of([0, 1]))
    with pytest.raises(ConfigError, match="needs log-probs of the policy and of a reference"):
        method.credit(batch, Scores())


def test_reading_and_crediting_load_no_torch():
    code = (
        "import sys, agentrl.objective as o\n"
        "objective = o.Objective(o.load_spec('grpo'))\n"
        "objective.credit(objective.select([]), o.Scores())\n"
        "print([m for m in ('torch', 'transformers', 'vllm') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_preset_file_is_checked():
    table = load_spec("grpo").as_dict()
    with pytest.raises(ConfigError, match="no key 'gaet'; did you mean 'gate'"):
        spec_from_table({**table, "gaet": "none"})
    with pytest.raises(ConfigError, match="lacks credit"):
        spec_from_table({k: v for k, v in table.items() if k != "credit"})
    with pytest.raises(ConfigError, match="side must be one of"):
        spec_from_table({**table, "side": "left"})
