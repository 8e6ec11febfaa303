"""TRL's side of a comparison: its trainers' own methods, with generation, rewards and log-probs given.

What comes in: a random batch and the trainer's settings. What goes out: advantages, corrections, losses, as TRL's
`_generate_and_score_completions` and `_compute_loss` make them. No model is run: where the trainer would sample, ask a
reward function or score tokens, it is handed the batch's numbers. Importing this skips the tests that do so where TRL
is not installed.

TRL wants groups of one size. A trajectory that no reward function could score stands for a failed one, so groups are
uneven all the same.
"""

from __future__ import annotations

from collections import defaultdict
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from tests.parity.batches import Sample, sample
from tests.parity.ours import Loss

WHY_NOT = "TRL 1.16.0 is not installed here; `make parity-setup` makes .venv-parity, which has it"

grpo = pytest.importorskip("trl.trainer.grpo_trainer", reason=WHY_NOT)
rloo = pytest.importorskip("trl.trainer.rloo_trainer", reason=WHY_NOT)
gmpo = pytest.importorskip("trl.experimental.gmpo.gmpo_trainer", reason=WHY_NOT)
get_soft_overlong_punishment = pytest.importorskip("trl.rewards", reason=WHY_NOT).get_soft_overlong_punishment
EOS = 2
ARGUMENTS = {  # read from the trainer's arguments
    "steps_per_generation": 1,
    "gradient_accumulation_steps": 1,
    "per_device_train_batch_size": None,
    "gradient_checkpointing_kwargs": None,
    "delta": None,
    "use_bias_correction_kl": False,
    "sapo_temperature_pos": 1.0,
    "sapo_temperature_neg": 1.05,
    "entropy_target": 0.2,
    "entropy_coef_delta": 0.005,
    "entropy_coef_min": 0.0,
    "entropy_coef_max": 1.0,
    "vespo_k_pos": 2.0,
    "vespo_lambda_pos": 3.0,
    "vespo_k_neg": 3.0,
    "vespo_lambda_neg": 2.0,
}
SETTINGS = {  # read from the trainer itself
    "num_iterations": 2,  # so that the log-probs at the step's start are kept
    "current_gradient_accumulation_steps": 1,
    "environment_factories": None,
    "environments": [],
    "tools": None,
    "pad_to_multiple_of": None,
    "log_multimodal": False,
    "aux_loss_enabled": False,
    "_entropy_bonus_enabled": False,
    "use_adaptive_entropy": False,
    "entropy_coef": 0.0,
    "_last_world_entropy": float("inf"),
    "_entropy_window_stats": None,
    "use_vllm": False,
    "vllm_importance_sampling_correction": False,
    "vllm_importance_sampling_mode": "sequence_mask",
    "vllm_importance_sampling_clip_min": None,
    "vllm_importance_sampling_clip_max": 3.0,
    "mask_truncated_completions": False,
    "max_completion_length": 40,
    "off_policy_mask_threshold": None,
    "top_entropy_quantile": 1.0,
    "beta": 0.0,
    "epsilon_low": 0.2,
    "epsilon_high": 0.28,
    "loss_type": "grpo",
    "importance_sampling_level": "token",
    "scale_rewards": "group",
    "multi_objective_aggregation": "sum_then_normalize",
    "reward_clip_range": None,
    "normalize_advantages": False,
}


SIZES = (4, 4, 4)  # TRL's groups are of one size


def whole(seed: int, drift: float = 0.4) -> Sample:
    """A batch without masked trajectories."""
    return sample(seed, sizes=SIZES, drift=drift, truncated=False)


class _Model(torch.nn.Module):
    is_gradient_checkpointing = False


class _OneProcess:
    """What the trainers ask of an accelerator."""

    device = torch.device("cpu")
    num_processes, process_index, sync_gradients = 1, 0, True

    def gather(self, x: torch.Tensor) -> torch.Tensor:
        return x

    def reduce(self, x: torch.Tensor, reduction: str) -> torch.Tensor:
        return x


class _Given:
    """A trainer that was never set up: its methods read what is put here."""

    observes = True  # knows observation tokens

    def __init__(self, played: Sample, rewards: np.ndarray | None = None, **settings: Any) -> None:
        """Args:
        rewards: [B] or [B, P]; NaN where a trajectory could not be scored; the episodes' own where absent
        settings: of the trainer or of its arguments
        """
        rewards = torch.tensor(played.batch.rewards if rewards is None else rewards).reshape(
            len(played.rows.groups), -1
        )
        self.rows = played.rows if self.observes else played.acted
        self.played, self.rewards = played, rewards
        self.leaf = torch.tensor(played.logprobs, requires_grad=True)
        self.entropies = torch.tensor(played.entropies, requires_grad=True)
        self.accelerator, self.model, self.ref_model = _OneProcess(), _Model(), _Model()
        self.args = SimpleNamespace(**ARGUMENTS)
        vars(self).update(SETTINGS)
        self.num_generations = len(rewards) // len(set(played.rows.groups))
        self.reward_weights = torch.ones(rewards.shape[1])
        self.reward_funcs = self.reward_func_names = [f"reward {p}" for p in range(rewards.shape[1])]
        self._tokenizer, self.eos_token_ids = SimpleNamespace(pad_token_id=0), [EOS]
        self._metrics: Any = {"train": defaultdict(list)}
        self._logs: Any = defaultdict(list, rewards=defaultdict(list))
        self._pending_extra_logs: dict[str, Any] = {}
        self._pending_metrics: dict[str, Any] = {}
        for name, value in settings.items():
            assert name in ARGUMENTS or name in SETTINGS, f"{name} would be read by nobody"
            setattr(self.args if name in ARGUMENTS else self, name, value)

    def _generate(self, prompts: list[Any]) -> Any:
        rows = self.rows
        real = rows.flat >= 0
        whole = rows.mask.sum(1) > 0
        lengths = real.sum(1).tolist()
        ids = [[*[5] * (length - 1), EOS if ended else 5] for length, ended in zip(lengths, whole, strict=True)]
        tool_masks = [row[keep].long().tolist() for row, keep in zip(rows.actions, real, strict=True)]
        sampled = [row[keep].tolist() for row, keep in zip(rows.of(self.played.behavior), real, strict=True)]
        return [[1]] * len(ids), ids, tool_masks, [""] * len(ids), sampled, {}, None, None

    def _calculate_rewards(self, *of: Any) -> torch.Tensor:
        return self.rewards

    def _get_per_token_logps_and_entropies(self, model: Any, *args: Any, **kwargs: Any) -> Any:
        by_model = {self.model: self.played.old, self.ref_model: self.played.reference}
        logprobs = self.leaf if model == "now" else by_model[model]
        return self.rows.of(logprobs), self.rows.of(self.entropies), None

    def scored(self) -> dict[str, torch.Tensor]:
        """What the trainer makes of a generation: advantages, corrections, masks."""
        out: dict[str, torch.Tensor] = self._generate_and_score_completions([{"prompt": ""}] * len(self.rewards))
        return out

    def advantages(self) -> np.ndarray:
        """[N] at action tokens, the same at all tokens of a trajectory."""
        of_rows = self.scored()["advantages"].numpy()
        batch = self.played.batch
        return of_rows[batch.token_trajectory] * batch.loss_mask

    def loss(self, advantages: np.ndarray | None = None, *, of_entropies: bool = False) -> Loss:
        """Args:
        advantages: [N], in place of those that the trainer made
        of_entropies: the gradient is by the entropies, not by the log-probs
        """
        inputs = self.scored()
        if advantages is not None:
            inputs["advantages"] = self.rows.of(advantages)
        value = self._compute_loss("now", inputs)
        (gradient,) = torch.autograd.grad(value, self.entropies if of_entropies else self.leaf)
        return Loss(value.item(), gradient.numpy())


class Grpo(_Given, grpo.GRPOTrainer):
    pass


class Gmpo(_Given, gmpo.GMPOTrainer):
    pass


class Rloo(_Given, rloo.RLOOTrainer):
    """RLOO's trainer knows no observation tokens: its rows must hold none."""

    observes = False

    def _generate(self, prompts: list[Any]) -> Any:
        prompt_ids, ids, *_ = super()._generate(prompts)
        return prompt_ids, ids, [""] * len(ids)
