"""Which function of a peer was compared with which components, and whether they agree.

`python -m tests.parity.table` writes docs/parity.md. Imports no peer: the table stands where they are not installed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PAGE = Path(__file__).resolve().parents[2] / "docs" / "parity.md"
NONE = "-"  # no counterpart, so no test

HEAD = """\
# Compared with verl and TRL

`make test-slow` runs the functions of verl 0.9.1 and TRL 1.16.0 beside agentrl's components: random episodes of several
turns with tool output between them, rewritten histories, groups of different sizes, trajectories that are masked out of
the loss and kept in the statistics, policies and samplers that have moved. Values and gradients (of the loss, by each
log-probability, value or entropy) agree to 1e-5, or the last column says what differs; then the test holds both
numbers. The tests are in `tests/parity/`; this page is written by `python -m tests.parity.table` and checked against
them. `make parity-setup` installs the two libraries into an environment of their own, since what they ask for does not
go together with what agentrl asks for.

"""


@dataclass(frozen=True)
class Row:
    """One comparison."""

    key: str  # "peer name": named by the test that proves it
    function: str
    ours: str  # components, or NONE
    differs: str = ""  # why, in both formulas, or why there is none; "" where they agree


VERL_ESTIMATORS = (
    Row("verl grpo", "`compute_grpo_outcome_advantage`", "`group_mean`, `group_std`"),
    Row("verl grpo, no std", "the same, `norm_adv_by_std_in_grpo=False`", "`group_mean`"),
    Row("verl grpo_vectorized", "`compute_grpo_vectorized_outcome_advantage`", "`group_mean`, `group_std`"),
    Row("verl grpo_passk, no std", "`compute_grpo_passk_outcome_advantage`, without std", "`second_best`"),
    Row("verl grpo_passk", "`compute_grpo_passk_outcome_advantage`", "`second_best`, `group_std`"),
    Row("verl rloo", "`compute_rloo_outcome_advantage`", "`leave_one_out`"),
    Row("verl rloo_vectorized", "`compute_rloo_vectorized_outcome_advantage`", "`leave_one_out`"),
    Row(
        "verl groups of one",
        "`grpo`, `rloo`, `opo` on a group of one trajectory",
        "`group_mean`, `leave_one_out`, `len_weighted`",
        "Theirs: the raw reward (`rloo_vectorized`: 0). Ours: 0, for nothing was compared.",
    ),
    Row(
        "verl reinforce_plus_plus",
        "`compute_reinforce_plus_plus_outcome_advantage`",
        "`rtg_token`, `batch_mean`, `whiten` (token)",
    ),
    Row(
        "verl reinforce_plus_plus_baseline",
        "`compute_reinforce_plus_plus_baseline_outcome_advantage`",
        "`group_mean`, `whiten` (token)",
    ),
    Row("verl gae", "`compute_gae_advantage_return`", "`gae_token`, `value`, `whiten` (token); `token_head`'s targets"),
    Row("verl remax", "`compute_remax_outcome_advantage`", "`rtg_token`, `greedy`"),
    Row("verl opo", "`compute_opo_outcome_advantage`", "`len_weighted`"),
    Row(
        "verl opo, masked trajectories",
        "the same, with trajectories that are masked out of the loss",
        "`len_weighted`",
        "Theirs weighs with the tokens in the loss, so that a masked trajectory leaves the baseline. Ours weighs with "
        "the sampled tokens: masking takes a trajectory out of the loss and out of no statistic.",
    ),
    Row("verl gdpo", "`compute_gdpo_outcome_advantage`", "`per_reward_std`, `group_mean`, `whiten` (token)"),
    Row(
        "verl gpg",
        "`compute_gpg_outcome_advantage`",
        "`group_mean`, `nonzero_frac`",
        "Theirs: times B / #{R != 0}. Ours, as in the paper: times B / (B - M), M the trajectories in groups of equal "
        "rewards: a reward of 0 in a mixed group teaches as much as another one.",
    ),
    Row(
        "verl apply_kl_penalty",
        "`kl_penalty` in the token rewards of `grpo`, `reinforce_plus_plus`",
        "`k1` in the reward",
    ),
    Row("verl AdaptiveKLController", "`AdaptiveKLController`", "`adaptive_k1`"),
    Row(
        "verl AdaptiveKLController, horizon below the batch",
        "the same, with a horizon below a fifth of the batch",
        "`adaptive_k1`",
        "Theirs multiplies with 1 - 0.2 n / horizon, which turns the coefficient negative. Ours lets n / horizon count "
        "as 1 at most.",
    ),
    Row(
        "verl otb",
        "`compute_optimal_token_baseline_advantage`, `compute_multi_turn_optimal_token_baseline_advantage`",
        NONE,
        "they need the sum of all squared probabilities at each token, which no score carries",
    ),
)
VERL_LOSSES = (
    Row("verl agg_loss token-mean", "`agg_loss`, `token-mean`", "`token_mean`"),
    Row("verl agg_loss seq-mean-token-mean", "`agg_loss`, `seq-mean-token-mean`", "`seq_mean_token_mean`"),
    Row("verl agg_loss seq-mean-token-sum", "`agg_loss`, `seq-mean-token-sum`", "`seq_mean_token_sum`"),
    Row("verl agg_loss seq-mean-token-sum-norm", "`agg_loss`, `seq-mean-token-sum-norm`", "`seq_sum_const`"),
    Row("verl agg_loss token-sum", "`agg_loss`, `token-sum`", NONE, "the step would grow with the batch"),
    Row("verl vanilla", "`compute_policy_loss_vanilla`", "ratio `token`, `dual_clip`"),
    Row("verl gspo", "`compute_policy_loss_gspo`", "ratio `seq_token_sg`, `clip`"),
    Row("verl cispo", "`compute_policy_loss_cispo`", "ratio `token`, `detached_clip`"),
    Row("verl sapo", "`compute_policy_loss_sapo`", "ratio `token`, `sigmoid`"),
    Row("verl gpg loss", "`compute_policy_loss_gpg`", "ratio `none`, gate `none`"),
    Row("verl dppo_tv", "`compute_policy_loss_dppo_tv`", "ratio `token`, `prob_mask`"),
    Row("verl dppo_kl", "`compute_policy_loss_dppo_kl`", NONE, "the same mask by another distance than `dppo_tv`'s"),
    Row("verl dro", "`compute_policy_loss_dro`", "ratio `none`, gate `none`, `behavior_k2`"),
    Row(
        "verl geo_mean",
        "`compute_policy_loss_geo_mean`",
        "ratio `token`, `logspace_geo`",
        "A trajectory without loss tokens is in their mean over trajectories and not in ours; without one, they agree.",
    ),
    Row(
        "verl clip_cov",
        "`compute_policy_loss_clip_cov`",
        "ratio `token`, `clip_cov`",
        "Theirs finds the candidates by the log-probs of now and of the micro-batch, leaving out what is clipped; ours "
        "by those at the step's start and of the whole step. With all candidates taken and nothing moved, they agree.",
    ),
    Row(
        "verl kl_cov",
        "`compute_policy_loss_kl_cov`",
        "ratio `token`, gate `none`, `kl_cov`",
        "Theirs chooses the tokens by the log-probs of now and of the micro-batch; ours by those at the step's start "
        "and of the whole step. Where the choice is the same, they agree.",
    ),
    Row("verl kl_penalty k1", "`kl_penalty`, `k1`", "`k1`"),
    Row("verl kl_penalty k2", "`kl_penalty`, `k2`", "`k2`"),
    Row("verl kl_penalty k3", "`kl_penalty`, `k3` (`low_var_kl`)", "`k3`"),
    Row(
        "verl kl_penalty k3, far off",
        "`kl_penalty`, `k3` above 10",
        "`k3`",
        "Theirs stops at 10, with no gradient there: the tokens farthest from the reference are not pulled back. Ours "
        "goes on.",
    ),
    Row("verl kl_penalty k3+", "`kl_penalty`, `k3+`", "`k3_plus`"),
    Row("verl kl_penalty abs", "`kl_penalty`, `abs`", NONE, "it estimates no KL"),
    Row("verl compute_value_loss", "`compute_value_loss`", "`token_head`'s loss"),
    Row("verl entropy", "the entropy bonus (`agg_loss` of entropies)", "`entropy`"),
)
VERL_CORRECTIONS = (
    Row("verl rollout_is token", "`rollout_is=token`", "`token_tis`"),
    Row("verl rollout_is sequence", "`rollout_is=sequence`", "`sequence_tis`"),
    Row("verl rollout_is token, lower_upper", "`rollout_is=token`, threshold `lower_upper`", "`token_mask`"),
    Row("verl rollout_is sequence, lower_upper", "`rollout_is=sequence`, threshold `lower_upper`", "`sequence_mask`"),
    *(
        Row(
            f"verl rollout_rs {option}",
            f"`rollout_rs={option}`",
            f"`{ours}`",
            "Their statistic is log(mu / pi_old), so the band low..high here is 1/high..1/low there; and they take "
            "what is rejected out of the denominator, here it counts as a loss of 0.",
        )
        for option, ours in (
            ("token_k1", "token_mask"),
            ("seq_mean_k1", "geometric_mask"),
            ("seq_sum_k1", "sequence_mask"),
        )
    ),
    Row(
        "verl rollout_rs others",
        "`rollout_rs` by `k2`, `k3` or a maximum; `rollout_is_batch_normalize`",
        NONE,
        "other bounds on the same gap",
    ),
    Row(
        "verl compute_offpolicy_metrics",
        "`compute_offpolicy_metrics`: KL, k3, chi2; effective sample size",
        "`behavior_k1`, `behavior_k3`, `sampler_ratio` in the metrics",
    ),
    Row("verl bypass_mode ppo_clip", "`compute_policy_loss_bypass_mode`, `ppo_clip`", "anchor `behavior`, `dual_clip`"),
    Row(
        "verl bypass_mode reinforce",
        "`compute_policy_loss_bypass_mode`, `reinforce`",
        "anchor `behavior`, ratio `token`, `detached_clip`",
    ),
)
TRL_ADVANTAGES = (
    Row("trl grpo, scale group", "`GRPOTrainer`, `scale_rewards=group`", "`group_mean`, `group_std`"),
    Row(
        "trl grpo, epsilon",
        "the same, as they stand",
        "`group_mean`, `group_std`",
        "Theirs divides by std + 1e-4, ours by std + 1e-6, as verl does; with `eps = 1e-4` they agree.",
    ),
    Row("trl grpo, scale batch", "`GRPOTrainer`, `scale_rewards=batch`", "`group_mean`, `batch_std`"),
    Row("trl grpo, scale none", "`GRPOTrainer`, `scale_rewards=none`", "`group_mean`"),
    Row(
        "trl grpo, normalize_then_sum",
        "`GRPOTrainer`, `normalize_then_sum`",
        "`per_reward_std`, `group_mean`, `whiten` (sequence)",
    ),
    Row("trl rloo", "`RLOOTrainer`, `beta`", "`leave_one_out`, `k1` in the reward"),
    Row(
        "trl rloo, normalize_advantages",
        "`RLOOTrainer`, `normalize_advantages`",
        "`leave_one_out`, `whiten` (sequence)",
    ),
    Row("trl get_soft_overlong_punishment", "`get_soft_overlong_punishment`", "`overlong_soft`"),
    Row(
        "trl get_soft_overlong_punishment, tool output",
        "the same, with tool output in the completion",
        "`overlong_soft`",
        "Theirs counts every token of the completion, ours the sampled ones: what a tool answers is no length of the "
        "policy's.",
    ),
    Row("trl unscorable", "a completion that no reward function could score", "a failed trajectory"),
)
TRL_LOSSES = (
    Row("trl grpo", "`loss_type=grpo`", "`clip`, `seq_mean_token_mean`"),
    Row("trl bnpo", "`loss_type=bnpo`", "`clip`, `token_mean`"),
    Row("trl dapo", "`loss_type=dapo`", "`clip`, `token_mean`"),
    Row("trl dr_grpo", "`loss_type=dr_grpo`", "`clip`, `seq_sum_const`"),
    Row("trl delta", "`delta`", "`two_sided`"),
    Row("trl cispo", "`loss_type=cispo`", "`detached_clip`, `token_mean`"),
    Row("trl sapo", "`loss_type=sapo`", "`sigmoid`, `seq_mean_token_mean`"),
    Row(
        "trl importance_sampling_level sequence", "`importance_sampling_level=sequence`", "ratio `sequence_geo`, `clip`"
    ),
    Row("trl luspo", "`loss_type=luspo`", "ratio `seq_token_sg`, `clip`, `seq_mean_token_sum`"),
    Row(
        "trl vespo", "`loss_type=vespo`, `get_gamma_weights`", "ratio `sequence_product`, `gamma_kernel`, `token_mean`"
    ),
    Row("trl gmpo", "`GMPOTrainer`", "`logspace_geo`, `seq_mean_token_mean`"),
    Row(
        "trl rloo loss",
        "`RLOOTrainer`, on action tokens alone: it knows no others",
        "ratio `sequence_product`, `clip`, `seq_mean_token_mean`",
    ),
    Row("trl grpo, beta", "`beta`", "`k3`"),
    Row("trl use_bias_correction_kl", "`use_bias_correction_kl`", "`k3_unbiased`"),
    Row(
        "trl truncated",
        "`mask_truncated_completions` with `loss_type=grpo` or `dr_grpo`",
        "`truncated_mask`",
        "A masked trajectory is in their number of trajectories and not in ours (nor in verl's).",
    ),
    Row("trl token_truncate", "`vllm_importance_sampling_mode=token_truncate`", "`token_tis`"),
    Row("trl token_mask", "`vllm_importance_sampling_mode=token_mask`", "`token_mask`"),
    Row("trl sequence_truncate", "`vllm_importance_sampling_mode=sequence_truncate`", "`sequence_tis`"),
    Row("trl sequence_mask", "`vllm_importance_sampling_mode=sequence_mask`", "`sequence_mask`"),
    Row("trl get_off_policy_mask", "`get_off_policy_mask`", "`opsm`"),
    Row(
        "trl entropy_coef",
        "`entropy_coef`",
        "`entropy`",
        "Theirs is a mean over tokens beside any loss, ours is weighed as the policy loss is; beside a mean over "
        "tokens they agree.",
    ),
    Row("trl use_adaptive_entropy", "`use_adaptive_entropy`", "`adaptive_entropy`"),
    Row("trl top_entropy_quantile", "`top_entropy_quantile`", NONE, "a quantile over the whole step's entropies"),
)
PRESETS = (
    Row("trl preset grpo", "`GRPOTrainer`, `loss_type=grpo`", "`grpo`, `eps = 1e-4`"),
    Row("trl preset dr_grpo", "`GRPOTrainer`, `loss_type=dr_grpo`, `scale_rewards=none`", "`dr_grpo`"),
    Row("trl preset dapo", "`GRPOTrainer`, `loss_type=dapo`, `epsilon_high=0.28`", "`dapo`, `eps = 1e-4`"),
    Row("trl preset gspo", "`GRPOTrainer`, `importance_sampling_level=sequence`", "`gspo`, `eps = 1e-4`"),
    Row("trl preset cispo", "`GRPOTrainer`, `loss_type=cispo`, `epsilon_high=5`", "`cispo`, `eps = 1e-4`"),
    Row("trl preset sapo", "`GRPOTrainer`, `loss_type=sapo`", "`sapo`, `eps = 1e-4`"),
    Row("trl preset two_sided", "`GRPOTrainer`, `delta=4`", "`two_sided`, `eps = 1e-4`"),
    Row("trl preset lite_ppo", "`GRPOTrainer`, `loss_type=bnpo`, `scale_rewards=batch`", "`lite_ppo`, `eps = 1e-4`"),
    Row("trl preset gmpo", "`GMPOTrainer`", "`gmpo`, `eps = 1e-4`"),
    Row("trl preset grpo_tis", "`GRPOTrainer`, `token_truncate`, 2", "`grpo_tis`, `eps = 1e-4`"),
    Row("trl preset grpo_seq_tis", "`GRPOTrainer`, `sequence_truncate`, 2", "`grpo_seq_tis`, `eps = 1e-4`"),
    Row("trl preset grpo_icepop", "`GRPOTrainer`, `token_mask`, 0.5 to 5", "`grpo_icepop`, `eps = 1e-4`"),
    Row("trl preset grpo_mis", "`GRPOTrainer`, `sequence_mask`, 3 (its default)", "`grpo_mis`, `eps = 1e-4`"),
    Row(
        "trl preset deepseek_v32",
        "`GRPOTrainer`, `off_policy_mask_threshold=0.5`, `use_bias_correction_kl`, `beta=0.04`",
        "`deepseek_v32`, `regularize.coef = 0.04`",
    ),
    Row("verl preset reinforce_pp", "`reinforce_plus_plus`, `vanilla`", "`reinforce_pp`"),
    Row("verl preset reinforce_pp_baseline", "`reinforce_plus_plus_baseline`, `vanilla`", "`reinforce_pp_baseline`"),
    Row("verl preset ppo", "`gae`, `vanilla`, 0.1 of `compute_value_loss`", "`ppo`"),
    Row("verl preset remax", "`remax`, `gpg` (the loss), `seq-mean-token-sum`", "`remax`"),
    Row("verl preset opo", "`opo`, `gpg` (the loss)", "`opo`"),
    Row("verl preset passk", "`grpo_passk`, `vanilla`", "`passk`"),
)
TABLES = {
    "verl: advantages": VERL_ESTIMATORS,
    "verl: losses": VERL_LOSSES,
    "verl: corrections for the sampler": VERL_CORRECTIONS,
    "TRL: advantages": TRL_ADVANTAGES,
    "TRL: losses and corrections": TRL_LOSSES,
    "Whole steps: presets": PRESETS,
}
ROWS = tuple(row for rows in TABLES.values() for row in rows)


def page() -> str:
    """docs/parity.md."""
    return HEAD + "\n".join(line for title, rows in TABLES.items() for line in _section(title, rows))


def _section(title: str, rows: tuple[Row, ...]) -> Iterator[str]:
    yield f"## {title}\n"
    yield "| theirs | ours | |"
    yield "|---|---|---|"
    for row in rows:
        verdict = f"not built: {row.differs}" if row.ours == NONE else row.differs or "agree"
        yield f"| {row.function} | {row.ours} | {verdict} |"
    yield ""


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
