"""The critic: what its values speak about, that it learns, what it costs where there is none."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from agentrl.errors import ConfigError
from agentrl.learner.explained import critic_metrics, explained_variance
from agentrl.learner.learner import Learner, loss_inputs
from agentrl.learner.micro import cut
from agentrl.learner.predictions import Predictions
from agentrl.learner.settings import OptimizerSettings
from agentrl.learner.sync import ModelWeights
from agentrl.learner.value_head import ValueHead
from agentrl.objective.batch import Credited, Scores
from agentrl.objective.loading import load_spec
from agentrl.objective.objective import Objective
from agentrl.trajectory import Group
from tests.learner.conftest import make_model
from tests.learner.episodes import make_groups


def make_learner(preset: str = "ppo", *, lr: float = 1e-3, value_lr: float = 0.1, **keywords: object) -> Learner:
    settings = OptimizerSettings(lr=lr)
    objective = Objective(load_spec(preset))
    return Learner(make_model(), objective, settings, total_updates=100, value_lr=value_lr, **keywords)  # type: ignore[arg-type]


def credit(learner: Learner, groups: list[Group]) -> Credited:
    batch = learner.objective.select(groups)
    return learner.objective.credit(batch, learner.score(batch))


def randomise(head: ValueHead) -> None:
    with torch.no_grad():
        head.weight.copy_(torch.randn(head.weight.shape, generator=torch.Generator().manual_seed(3)))
        head.bias.fill_(0.7)


@pytest.mark.parametrize("preset", ["ppo", "turn_ppo"])
def test_a_value_is_read_off_the_hidden_state_before_the_token(preset: str) -> None:
    """The state that predicts token t: after token t - 1, the observation's last one where the turn begins."""
    learner = make_learner(preset, micro_batch_tokens=30)
    assert learner.value_head is not None
    randomise(learner.value_head)
    batch = learner.objective.select(make_groups(0, a_segment=2))
    values = learner.score(batch).values
    assert values is not None
    head = {name: tensor.detach() for name, tensor in learner.value_head.state_dict().items()}
    for start, end in zip(batch.row_starts[:-1], batch.row_starts[1:], strict=True):
        ids = torch.from_numpy(batch.token_ids[start:end])[None]
        with torch.no_grad():
            hidden = learner.model.model(input_ids=ids).last_hidden_state[0]
        for t in range(start, end):
            if batch.action_mask[t]:
                feature = (hidden[t - start - 1] - head["centre"]) / head["spread"]
                expected = float((feature * head["weight"]).sum() / 32 + head["bias"])
                assert values[t] == pytest.approx(expected, abs=1e-4)
            else:
                assert values[t] == 0


def test_it_promises_nothing_at_first() -> None:
    learner = make_learner()
    values = learner.score(learner.objective.select(make_groups(0))).values
    assert values is not None
    assert not values.any()


@pytest.mark.parametrize("preset", ["ppo", "turn_ppo", "vc_ppo"])
def test_it_learns_to_predict_the_returns_of_a_batch(preset: str) -> None:
    learner = make_learner(preset)
    groups = make_groups(1)
    history = []
    for step in range(60):
        history.append(learner.update(credit(learner, groups), step=step))
    assert "critic/explained" in history[0]
    assert history[0]["critic/explained"] == pytest.approx(0, abs=1e-6)
    shares = [metrics["critic/explained"] for metrics in history]
    assert 0 < shares[20] < shares[40] < shares[59]
    assert shares[59] > 0.5
    assert history[-1]["critic_loss"] < 0.5 * history[0]["critic_loss"]
    assert history[-1]["critic/value"] == pytest.approx(history[-1]["critic/return"], abs=0.3)


def test_the_trunk_learns_from_the_critic() -> None:
    """With no advantage at all, what moves the policy's weights is the critic's loss, through its hidden states."""
    learner = make_learner()
    assert learner.value_head is not None
    randomise(learner.value_head)
    credited = credit(learner, make_groups(1))
    still = replace(credited, advantages=np.zeros_like(credited.advantages))
    learner.update(still, step=0)
    norms = {name: float(p.grad.norm()) for name, p in learner.model.named_parameters() if p.grad is not None}
    assert norms["model.layers.0.self_attn.q_proj.weight"] > 1e-6
    assert norms["lm_head.weight"] < 1e-7  # the policy's own loss had no gradient


def test_the_head_is_scaled_once_by_what_the_first_batch_shows() -> None:
    learner = make_learner(micro_batch_tokens=30)
    head = learner.value_head
    assert head is not None
    empty = learner.objective.select([])
    learner.score(empty)
    assert not head.measured
    batch = learner.objective.select(make_groups(0))
    learner.score(batch)
    rows = zip(batch.row_starts[:-1], batch.row_starts[1:], strict=True)
    states = []
    for start, end in rows:
        ids = torch.from_numpy(batch.token_ids[start:end])[None]
        before = np.flatnonzero(batch.action_mask[start:end]) - 1
        with torch.no_grad():
            states.append(learner.model.model(input_ids=ids).last_hidden_state[0][before])
    features = (torch.cat(states) - head.centre) / head.spread
    torch.testing.assert_close(features.mean(0), torch.zeros(32), atol=1e-4, rtol=0)
    torch.testing.assert_close(features.std(0, correction=0), torch.ones(32), atol=1e-3, rtol=0)
    kept = head.centre.clone(), head.spread.clone()
    learner.score(learner.objective.select(make_groups(5)))
    assert torch.equal(head.centre, kept[0])
    assert torch.equal(head.spread, kept[1])


def test_features_that_hardly_move_are_not_blown_up() -> None:
    head = ValueHead(4, torch.device("cpu"))
    head.measure([torch.tensor([[0.0, 5, 1, 0]]), torch.tensor([[2.0, 5, 1, 1e-6]])])
    assert head.centre.tolist() == pytest.approx([1, 5, 1, 5e-7])
    assert head.spread.tolist() == pytest.approx([1, 0.025, 0.025, 0.025])
    head.measure([torch.ones(1, 4)])
    assert head.spread.tolist() == [1, 1, 1, 1]


def test_values_and_log_probs_come_from_one_forward_pass() -> None:
    learner = make_learner(micro_batch_tokens=10_000)
    learner.score(learner.objective.select(make_groups(1)))
    calls: list[int] = []
    learner.model.model.register_forward_hook(lambda *_: calls.append(1))
    scores = learner.score(learner.objective.select(make_groups(0)))
    assert scores.values is not None
    assert scores.logprobs is not None
    assert len(calls) == 1


def test_no_critic_no_head_and_no_pass() -> None:
    learner = make_learner("grpo")
    assert learner.value_head is None
    assert "value_head" not in learner.state()
    calls = []
    learner.model.model.register_forward_hook(lambda *_: calls.append(1))
    scores = learner.score(learner.objective.select(make_groups(0)))
    assert (scores.values, scores.logprobs, calls) == (None, None, [])


def test_the_head_has_a_learning_rate_of_its_own_and_the_schedule_of_all() -> None:
    settings = OptimizerSettings(lr=0.01, schedule="linear", weight_decay=0.1)
    learner = Learner(make_model(), Objective(load_spec("ppo")), settings, total_updates=4, value_lr=0.08)
    learner.update(credit(learner, make_groups(0)), step=0)
    of_head = learner.optimizer.param_groups[-1]
    assert {p.shape for p in of_head["params"]} == {torch.Size([32]), torch.Size([])}
    assert (of_head["lr"], of_head["weight_decay"]) == (pytest.approx(0.06), 0.0)
    assert learner.optimizer.param_groups[0]["lr"] == pytest.approx(0.0075)


def test_the_gradients_bound_counts_the_head() -> None:
    settings = OptimizerSettings(lr=0.0, max_grad_norm=1e-3)
    learner = Learner(make_model(), Objective(load_spec("ppo")), settings, total_updates=4, value_lr=0.0)
    learner.update(credit(learner, make_groups(0)), step=0)
    assert learner.value_head is not None
    parameters = [*learner.model.parameters(), *learner.value_head.parameters()]
    total = sum(float(p.grad.norm() ** 2) for p in parameters if p.grad is not None) ** 0.5
    assert total == pytest.approx(1e-3, rel=1e-3)
    assert all(p.grad is not None for p in learner.value_head.parameters())


def test_the_engine_never_gets_the_head() -> None:
    learner = make_learner()
    before = {name for name, _ in ModelWeights(make_model()).named_tensors()}  # type: ignore[arg-type]
    assert {name for name, _ in ModelWeights(learner.model).named_tensors()} == before  # type: ignore[arg-type]


def test_state_goes_on_where_it_stopped_head_and_all() -> None:
    whole, half = make_learner(), make_learner()
    for step in range(2):
        whole.update(credit(whole, make_groups(step)), step=step)
    half.update(credit(half, make_groups(0)), step=0)
    rest = make_learner()
    rest.model.load_state_dict(half.model.state_dict())
    rest.load_state(half.state())
    rest.update(credit(rest, make_groups(1)), step=1)
    assert whole.value_head is not None
    assert rest.value_head is not None
    for a, b in zip(
        [*whole.model.parameters(), *whole.value_head.parameters()],
        [*rest.model.parameters(), *rest.value_head.parameters()],
        strict=True,
    ):
        assert torch.equal(a, b)


def test_a_state_of_another_kind_of_objective_is_refused() -> None:
    with pytest.raises(ConfigError, match="was written with no critic and the objective 'ppo' has one"):
        make_learner("ppo").load_state(make_learner("grpo").state())
    with pytest.raises(ConfigError, match="was written with a critic and the objective 'grpo' has none"):
        make_learner("grpo").load_state(make_learner("ppo").state())


def test_the_loss_reads_what_the_step_began_with() -> None:
    learner = make_learner()
    batch = learner.objective.select(make_groups(0))
    rng = np.random.default_rng(0)

    def row() -> np.ndarray:
        return rng.normal(size=batch.n_tokens).astype(np.float32)

    scores = Scores(logprobs=row(), reference=row(), values=row())
    credited = Credited(batch, scores, row().astype(np.float64), {}, row(), {"a": row(), "b": row()}, {"k": {"x": 1.0}})
    weights = row().astype(np.float64)
    everything = np.arange(batch.n_trajectories)
    micros = list(cut(batch, everything, batch.loss_mask, budget=40, whole=False, device=learner.device))
    assert len(micros) > 2
    assert sorted(np.concatenate([m.flat for m in micros])) == np.flatnonzero(batch.loss_mask).tolist()
    for micro in micros:
        ours = Predictions(*(torch.randn(len(micro.flat), requires_grad=True) for _ in range(3)))
        got = loss_inputs(credited, weights, micro, ours)
        assert (got.logprobs, got.entropies, got.values) == (ours.logprobs, ours.entropies, ours.values)
        assert (got.memory, set(got.columns)) == ({"k": {"x": 1.0}}, {"a", "b"})
        pairs = [
            (got.old_logprobs, scores.logprobs),
            (got.reference_logprobs, scores.reference),
            (got.old_values, scores.values),
            (got.returns, credited.returns),
            (got.advantages, credited.advantages),
            (got.weights, weights),
            (got.behavior_logprobs, batch.behavior_logprobs),
            (got.turn_ids, batch.turn_ids),
            *((got.columns[name], credited.columns[name]) for name in "ab"),
        ]
        for tensor, array in pairs:
            assert tensor is not None
            assert array is not None
            assert not tensor.requires_grad
            np.testing.assert_allclose(tensor.numpy(), array[micro.flat], rtol=1e-6)
        ids = got.sequence_ids.tolist()
        assert set(ids) == set(range(max(ids) + 1))
        same = batch.token_trajectory[micro.flat]
        assert len(set(zip(ids, same.tolist(), strict=True))) == len(set(ids)) == len(set(same.tolist()))


def test_explained_variance_by_hand() -> None:
    assert explained_variance(np.array([0.0, 2.0]), np.array([0.0, 2.0])) == 1.0
    assert explained_variance(np.array([0.0, 2.0]), np.array([5.0, 7.0])) == 1.0  # a constant off is still explained
    assert explained_variance(np.array([0.0, 2.0]), np.array([1.0, 1.0])) == 0.0
    assert explained_variance(np.array([0.0, 2.0]), np.array([2.0, 0.0])) == -3.0
    assert explained_variance(np.array([0.0, 2.0]), np.array([0.5, 1.5])) == 0.75
    assert explained_variance(np.array([1.0, 1.0]), np.array([0.0, 2.0])) is None
    assert explained_variance(np.array([]), np.array([])) is None


def test_explained_variance_of_each_turn() -> None:
    """Values right at first turns, a constant at second ones, upside down later; tokens not asked or masked are out."""
    learner = make_learner()
    credited = credit(learner, make_groups(3))
    batch = credited.batch
    rng = np.random.default_rng(0)
    returns = rng.normal(size=batch.n_tokens).astype(np.float32)
    values = np.choose(np.clip(batch.turn_ids, 0, 2), [returns, np.zeros_like(returns), -returns])
    dropped = batch.token_trajectory == 0
    unasked = batch.token_trajectory == 1
    values = np.where(dropped | unasked, 1e6, values).astype(np.float32)
    returns = np.where(unasked, np.nan, returns).astype(np.float32)
    made = replace(
        credited,
        batch=replace(batch, loss_mask=batch.loss_mask & ~dropped),
        scores=replace(credited.scores, values=values),
        returns=returns,
    )
    metrics = critic_metrics(made)
    assert metrics["critic/explained_turn0"] == pytest.approx(1, abs=1e-6)
    assert metrics["critic/explained_turn1"] == pytest.approx(0, abs=1e-6)
    assert metrics["critic/explained_turn2on"] == pytest.approx(-3, abs=1e-5)
    assert abs(metrics["critic/value"]) < 1
    assert -3 < metrics["critic/explained"] < 1
    assert critic_metrics(replace(made, returns=None)) == {}
    assert critic_metrics(replace(made, batch=replace(batch, loss_mask=np.zeros_like(batch.loss_mask)))) == {}
