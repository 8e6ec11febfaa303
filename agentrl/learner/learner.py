"""Turns credited batches into weight updates.

What comes in: a model, an objective, credited batches. What goes out: log-probs, updated weights, metrics of each
update. Single process, one device: float32 weights, with bfloat16 computation where asked. Rows are computed in
micro-batches by token budget; the loss is a sum with weights fixed beforehand, so the split never changes it. Knows
no environment and no engine.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from agentrl.errors import RunStoppedError
from agentrl.learner.logprobs import token_logprobs
from agentrl.learner.optimizer import make_optimizer
from agentrl.learner.packing import micro_batches, pad_rows
from agentrl.learner.settings import OptimizerSettings
from agentrl.learner.totals import Totals
from agentrl.objective.batch import Batch, Credited, Scores
from agentrl.objective.objective import Objective
from agentrl.objective.trajectory_side.inputs import LossInputs
from agentrl.seeds import derive_seed
from agentrl.trajectory import BoolArray, FloatArray, IntArray


@dataclass(frozen=True, slots=True)
class _Micro:
    """One micro-batch on the device."""

    input_ids: Tensor  # [B, L]
    rows: Tensor  # [A] row of each computed token
    columns: Tensor  # [A]
    flat: IntArray  # [A] where each computed token stands in the batch's flat stream
    row_tokens: int  # of input_ids, without padding


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
        reference: a frozen copy for KL terms, where the objective asks for one.
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
        reference: nn.Module | None = None,
        seed: int = 0,
    ) -> None:
        self.model, self.objective, self.reference = model, objective, reference
        self.settings = optimizer
        self.optimizer, self.schedule = make_optimizer(model.parameters(), optimizer, total_updates=total_updates)
        self.temperature = temperature
        self.epochs, self.minibatches = epochs, minibatches
        self.micro_batch_tokens = micro_batch_tokens
        self.compute_dtype = compute_dtype
        self.device = next(model.parameters()).device
        self._seed = seed

    def score(self, batch: Batch) -> Scores:
        """Log-probs that the objective needs before credit.

        The old log-probs are computed only where a batch is updated on more than once: with a single update they are
        the current ones.
        """
        reused = self.epochs * self.minibatches > 1
        old = self._frozen_logprobs(self.model, batch) if reused or self.objective.spec.needs_logprobs else None
        reference = None
        if self.objective.spec.needs_reference:
            if self.reference is None:
                raise RunStoppedError("the objective needs a reference model and the learner was given none")
            reference = self._frozen_logprobs(self.reference, batch)
        return Scores(logprobs=old, reference=reference, values=None)

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
            out, _ = token_logprobs(
                self.model, input_ids, torch.zeros_like(columns), columns, temperature=self.temperature
            )
        result: FloatArray = out.float().cpu().numpy()
        return result

    def state(self) -> dict[str, object]:
        """Optimiser and schedule, for a checkpoint."""
        return {"optimizer": self.optimizer.state_dict(), "schedule": self.schedule.state_dict()}

    def load_state(self, state: Mapping[str, object]) -> None:
        """Take back what `state` gave."""
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
        for micro in self._micros(credited.batch, part, credited.batch.loss_mask):
            self._accumulate(credited, weights, micro, totals)
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.max_grad_norm)
        if not torch.isfinite(norm):
            raise RunStoppedError(
                f"the gradient norm is {norm.item()} (loss so far {totals.sums['loss']:.4g}): the update was not made. "
                "Lower learner.optimizer.lr, or look at the batch in the run's trajectories folder"
            )
        self.optimizer.step()
        self.schedule.step()
        return float(norm)

    def _accumulate(self, credited: Credited, weights: FloatArray, micro: _Micro, totals: Totals) -> None:
        """Add one micro-batch's gradient, and its sums to `totals`."""
        batch, scores = credited.batch, credited.scores
        with self._autocast():
            logprobs, entropies = token_logprobs(
                self.model, micro.input_ids, micro.rows, micro.columns, temperature=self.temperature
            )
        old = logprobs.detach() if scores.logprobs is None else self._tensor(scores.logprobs, micro)
        out = self.objective.loss(
            LossInputs(
                logprobs=logprobs,
                old_logprobs=old,
                behavior_logprobs=self._tensor(batch.behavior_logprobs, micro),
                reference_logprobs=None if scores.reference is None else self._tensor(scores.reference, micro),
                advantages=self._tensor(credited.advantages, micro),
                weights=self._tensor(weights, micro),
                sequence_ids=torch.from_numpy(dense(batch.token_trajectory[micro.flat])).to(self.device),
                turn_ids=torch.from_numpy(batch.turn_ids[micro.flat]).to(self.device),
                entropies=entropies,
            )
        )
        out.loss.backward()  # type: ignore[no-untyped-call]
        totals.add({"loss": out.loss, **out.sums}, out.maxima)
        totals.sums["padded_tokens"] += micro.input_ids.numel()
        totals.sums["row_tokens"] += micro.row_tokens

    def _frozen_logprobs(self, model: nn.Module, batch: Batch) -> FloatArray:
        out = np.zeros(len(batch.token_ids), np.float32)
        model.eval()
        with torch.no_grad(), self._autocast():
            for micro in self._micros(batch, np.arange(len(batch.trajectories)), batch.action_mask):
                logprobs, _ = token_logprobs(
                    model, micro.input_ids, micro.rows, micro.columns, temperature=self.temperature
                )
                out[micro.flat] = logprobs.float().cpu().numpy()
        return out

    def _micros(self, batch: Batch, trajectories: IntArray, mask: BoolArray) -> Iterator[_Micro]:
        """Micro-batches of the trajectories' rows that hold a token of the mask, longest rows first."""
        chosen = np.zeros(len(batch.trajectories), np.bool_)
        chosen[trajectories] = True
        per_row = np.add.reduceat(mask.astype(np.int64), batch.row_starts[:-1])
        rows = np.flatnonzero(chosen[batch.row_trajectory] & (per_row > 0))
        lengths = (batch.row_starts[1:] - batch.row_starts[:-1])[rows]
        if self.objective.spec.needs_whole_trajectories and len(np.unique(batch.row_trajectory[rows])) < len(rows):
            raise RunStoppedError(
                "a ratio over whole sequences met a trajectory of several segments, which this learner may compute "
                "apart: use objective.ratio = 'token' or 'none'"
            )
        for members in micro_batches(lengths, self.micro_batch_tokens):
            picked = rows[members]
            padded = pad_rows(batch.token_ids, batch.row_starts, picked)
            starts = batch.row_starts[picked]
            where = [np.flatnonzero(mask[s : batch.row_starts[r + 1]]) for r, s in zip(picked, starts, strict=True)]
            columns = np.concatenate(where)
            row_of = np.repeat(np.arange(len(picked)), [len(w) for w in where])
            yield _Micro(
                input_ids=torch.from_numpy(padded).to(self.device),
                rows=torch.from_numpy(row_of).to(self.device),
                columns=torch.from_numpy(columns).to(self.device),
                flat=starts[row_of] + columns,
                row_tokens=int(lengths[members].sum()),
            )

    def _tensor(self, array: FloatArray, micro: _Micro) -> Tensor:
        return torch.from_numpy(array[micro.flat].astype(np.float32)).to(self.device)

    def _autocast(self) -> AbstractContextManager[object]:
        if self.compute_dtype is torch.float32:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self.compute_dtype)


def dense(ids: IntArray) -> IntArray:
    """The same partition with ids 0, 1, 2, ..."""
    return np.unique(ids, return_inverse=True)[1].astype(np.int64)
