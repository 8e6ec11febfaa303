"""Turns credited batches into weight updates.

What comes in: a model, an objective, credited batches. What goes out: log-probs, values, updated weights, metrics of
each update. Single process, one device: float32 weights, with bfloat16 computation where asked. Rows are computed in
micro-batches by token budget; the loss is a sum with weights fixed beforehand, so the split never changes it. Knows
no environment and no engine.

Where the objective has a critic, the learner keeps a head for it on the policy's last hidden state and trains both in
one optimiser.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch
from torch import Tensor, nn

from agentrl.errors import ConfigError, RunStoppedError
from agentrl.learner.explained import critic_metrics
from agentrl.learner.micro import Micro, cut
from agentrl.learner.optimizer import make_optimizer
from agentrl.learner.predictions import Predictions, hidden_before, make_value_head, predict
from agentrl.learner.settings import OptimizerSettings
from agentrl.learner.totals import Totals
from agentrl.learner.value_head import ValueHead
from agentrl.objective.batch import Batch, Credited, Float64Array, Scores
from agentrl.objective.objective import Objective
from agentrl.objective.trajectory_side.inputs import LossInputs
from agentrl.seeds import derive_seed
from agentrl.trajectory import BoolArray, FloatArray, IntArray


class Learner:
    """Owns a model's optimiser.

    Args:
        model: a transformers causal language model in float32, on `device`.
        objective: gives the loss and says what must be scored.
        optimizer: its settings.
        total_updates: where the learning-rate schedule ends.
        temperature: what the sampler divides its logits by.
        epochs, minibatches: passes over a batch, and updates a pass.
        micro_batch_tokens: padded tokens computed at once.
        compute_dtype: dtype of matrix work; the weights stay float32.
        value_lr: learning rate of the critic's head, where the objective has a critic.
        reference: a frozen copy for KL terms, where the objective asks for one.
        teacher: a frozen model with the same tokens, where the objective asks for one.
        seed: shuffles minibatches.
    """

    def __init__(
        self,
        model: nn.Module,
        objective: Objective,
        optimizer: OptimizerSettings,
        *,
        total_updates: int,
        temperature: float = 1.0,
        epochs: int = 1,
        minibatches: int = 1,
        micro_batch_tokens: int = 8192,
        compute_dtype: torch.dtype = torch.float32,
        value_lr: float = 0.1,
        reference: nn.Module | None = None,
        teacher: nn.Module | None = None,
        seed: int = 0,
    ) -> None:
        self.model, self.objective, self.reference, self.teacher = model, objective, reference, teacher
        self.value_head = make_value_head(model) if objective.spec.needs_values else None
        of_head = [] if self.value_head is None else list(self.value_head.parameters())
        self._trained = [*model.parameters(), *of_head]
        self.settings = optimizer
        self.optimizer, self.schedule = make_optimizer(
            model.parameters(), optimizer, total_updates=total_updates, value_head=of_head, value_lr=value_lr
        )
        self.temperature = temperature
        self.epochs, self.minibatches = epochs, minibatches
        self.micro_batch_tokens = micro_batch_tokens
        self.compute_dtype = compute_dtype
        self.device = next(model.parameters()).device
        self._seed = seed

    def score(self, batch: Batch) -> Scores:
        """What the objective needs of the models before credit.

        The policy's own log-probs are computed only where credit reads them, where a critic is asked, or where a batch
        is updated on more than once: with a single update they are the current ones.

        Raises:
            RunStoppedError: the objective needs a reference or a teacher and the learner was given none.
        """
        spec = self.objective.spec
        logprobs = values = None
        if self.value_head is not None and not self.value_head.measured:
            self.value_head.measure(self._hidden(batch))
        if self.epochs * self.minibatches > 1 or spec.needs_logprobs or spec.needs_values:
            logprobs, values = self._frozen(self.model, batch, self.value_head)
        return Scores(
            logprobs=logprobs,
            reference=self._other("reference", self.reference, batch) if spec.needs_reference else None,
            teacher=self._other("teacher", self.teacher, batch) if spec.needs_teacher else None,
            values=values,
        )

    def update(self, credited: Credited, *, step: int) -> dict[str, float]:
        """Update on one credited batch, `epochs` x `minibatches` times.

        Returns:
            Metrics of the updates: sums over tokens divided by their number, and gradient norm, learning rate, time.

        Raises:
            RunStoppedError: the loss or the gradient is not finite; the weights are those before that update.
        """
        began = time.perf_counter()
        totals = Totals()
        lr = float(self.schedule.get_last_lr()[0])  # of the first of the updates
        norms: list[float] = []
        self.model.train()
        for epoch in range(self.epochs):
            for part in self._parts(credited.batch, step, epoch):
                norms.append(self._update_once(credited, part, totals))
        return {
            **totals.means(len(norms)),
            **critic_metrics(credited),
            "grad_norm": float(np.mean(norms)) if norms else 0.0,
            "lr": lr,
            "updates": float(len(norms)),
            "update_s": time.perf_counter() - began,
        }

    def logprobs(self, token_ids: IntArray, mask: BoolArray) -> FloatArray:
        """Log-probs of one stream's masked tokens.

        Args:
            token_ids: [L]; mask: [L], false at position 0.

        Returns:
            [number of true] float32, nats, at the learner's temperature.
        """
        columns = torch.from_numpy(np.flatnonzero(mask)).to(self.device)
        input_ids = torch.from_numpy(np.ascontiguousarray(token_ids)).to(self.device).unsqueeze(0)
        self.model.eval()
        with torch.no_grad(), self._autocast():
            out = predict(self.model, input_ids, torch.zeros_like(columns), columns, temperature=self.temperature)
        return _numpy(out.logprobs)

    def state(self) -> dict[str, object]:
        """Optimiser, schedule and the critic's head, for a checkpoint."""
        head = {} if self.value_head is None else {"value_head": self.value_head.state_dict()}
        return {"optimizer": self.optimizer.state_dict(), "schedule": self.schedule.state_dict(), **head}

    def load_state(self, state: Mapping[str, object]) -> None:
        """Take back what `state` gave.

        Raises:
            ConfigError: the objective has a critic and the state was written without one, or the other way round.
        """
        if ("value_head" in state) != (self.value_head is not None):
            had, has = ("a", "none") if self.value_head is None else ("no", "one")
            raise ConfigError(
                f"the checkpoint was written with {had} critic and the objective {self.objective.spec.name!r} has "
                f"{has}: go on with the objective that the run began with, or begin a new run"
            )
        if self.value_head is not None:
            self.value_head.load_state_dict(state["value_head"])  # type: ignore[arg-type]
        self.optimizer.load_state_dict(state["optimizer"])  # type: ignore[arg-type]
        self.schedule.load_state_dict(state["schedule"])  # type: ignore[arg-type]

    def _parts(self, batch: Batch, step: int, epoch: int) -> Iterator[IntArray]:
        """The trajectories of each update of one pass; those without a loss token stand in none."""
        trained = np.flatnonzero(batch.loss_counts)
        if self.minibatches > 1:
            trained = np.random.default_rng(derive_seed(self._seed, "minibatch", step, epoch)).permutation(trained)
        yield from (part for part in np.array_split(trained, self.minibatches) if len(part))

    def _update_once(self, credited: Credited, part: IntArray, totals: Totals) -> float:
        weights = self.objective.token_weights(credited.batch, part)
        self.optimizer.zero_grad(set_to_none=True)
        whole = self.objective.spec.needs_whole_trajectories
        for micro in self._micros(credited.batch, part, credited.batch.loss_mask, whole=whole):
            self._accumulate(credited, weights, micro, totals)
        norm = torch.nn.utils.clip_grad_norm_(self._trained, self.settings.max_grad_norm)
        if not torch.isfinite(norm):
            raise RunStoppedError(
                f"the gradient norm is {norm.item()} (loss so far {totals.sums['loss']:.4g}): the update was not made. "
                "Lower learner.optimizer.lr, or look at the batch in the run's trajectories folder"
            )
        self.optimizer.step()
        self.schedule.step()
        return float(norm)

    def _accumulate(self, credited: Credited, weights: Float64Array, micro: Micro, totals: Totals) -> None:
        """Add one micro-batch's gradient, and its sums to `totals`."""
        with self._autocast():
            predicted = self._predict(self.model, micro, self.value_head)
        out = self.objective.loss(loss_inputs(credited, weights, micro, predicted))
        out.loss.backward()  # type: ignore[no-untyped-call]
        totals.add({"loss": out.loss, **out.sums}, out.maxima, out.samples)
        totals.sums["padded_tokens"] += micro.input_ids.numel()
        totals.sums["row_tokens"] += micro.row_tokens

    def _other(self, name: str, model: nn.Module | None, batch: Batch) -> FloatArray:
        if model is None:
            raise RunStoppedError(f"the objective needs a {name} model and the learner was given none")
        return self._frozen(model, batch, None)[0]

    def _hidden(self, batch: Batch) -> Iterator[Tensor]:
        """[A, D] each: the hidden states before a batch's action tokens."""
        self.model.eval()
        for micro in self._micros(batch, np.arange(batch.n_trajectories), batch.action_mask, whole=False):
            with torch.no_grad(), self._autocast():
                hidden = hidden_before(self.model, micro.input_ids, micro.rows, micro.columns)
            yield hidden

    def _frozen(
        self, model: nn.Module, batch: Batch, value_head: ValueHead | None
    ) -> tuple[FloatArray, FloatArray | None]:
        """[N] log-probs and values at every action token, in one pass."""
        logprobs = np.zeros(batch.n_tokens, np.float32)
        values = None if value_head is None else np.zeros(batch.n_tokens, np.float32)
        model.eval()
        with torch.no_grad(), self._autocast():
            for micro in self._micros(batch, np.arange(batch.n_trajectories), batch.action_mask, whole=False):
                predicted = self._predict(model, micro, value_head)
                logprobs[micro.flat] = _numpy(predicted.logprobs)
                if values is not None and predicted.values is not None:
                    values[micro.flat] = _numpy(predicted.values)
        return logprobs, values

    def _predict(self, model: nn.Module, micro: Micro, value_head: ValueHead | None) -> Predictions:
        return predict(
            model,
            micro.input_ids,
            micro.rows,
            micro.columns,
            temperature=self.temperature,
            value_head=value_head,
            entropy_gradient=self.objective.spec.needs_entropy,
        )

    def _micros(self, batch: Batch, trajectories: IntArray, mask: BoolArray, *, whole: bool) -> Iterator[Micro]:
        return cut(batch, trajectories, mask, budget=self.micro_batch_tokens, whole=whole, device=self.device)

    def _autocast(self) -> AbstractContextManager[object]:
        if self.compute_dtype is torch.float32:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self.compute_dtype)


def loss_inputs(credited: Credited, weights: Float64Array, micro: Micro, predicted: Predictions) -> LossInputs:
    """One micro-batch as the loss reads it.

    Args:
        weights: [N] of the update's tokens.
    """
    batch, scores = credited.batch, credited.scores

    def pick(array: FloatArray | None) -> Tensor | None:
        return None if array is None else micro.pick(array)

    return LossInputs(
        logprobs=predicted.logprobs,
        old_logprobs=predicted.logprobs.detach() if scores.logprobs is None else micro.pick(scores.logprobs),
        behavior_logprobs=micro.pick(batch.behavior_logprobs),
        reference_logprobs=pick(scores.reference),
        advantages=micro.pick(credited.advantages),
        weights=micro.pick(weights),
        sequence_ids=micro.pick_dense(batch.token_trajectory),
        turn_ids=micro.pick_ids(batch.turn_ids),
        entropies=predicted.entropies,
        values=predicted.values,
        old_values=pick(scores.values),
        returns=pick(credited.returns),
        columns={name: micro.pick(column) for name, column in credited.columns.items()},
        memory=credited.memory,
    )


def _numpy(values: Tensor) -> FloatArray:
    out: FloatArray = values.float().cpu().numpy()
    return out
