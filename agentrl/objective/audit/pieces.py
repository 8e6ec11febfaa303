"""The objectives beside the presets that the audit's page shows: one choice at a time, in an unbiased method.

What comes in: nothing. What goes out: overrides of `rloo` by name. Knows no numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from agentrl.objective.loading import load_spec
from agentrl.objective.spec import ObjectiveSpec

Overrides = Mapping[str, Any]
_CRITIC = {"name": "token_head", "coef": 0.1, "clip": 0.2, "gamma": 1.0, "lam": 1.0}

CREDITS_AND_BASELINES: tuple[tuple[Any, Any], ...] = (
    *(("outcome_broadcast", b) for b in ("none", "batch_mean", "group_mean", "leave_one_out", "len_weighted")),
    *(("outcome_broadcast", b) for b in ("second_best", "greedy", "ema")),
    *(("rtg_turn", b) for b in ("none", "group_mean", "leave_one_out", "turn_mean", "turn_leave_one_out")),
    *(("rtg_turn", b) for b in ("state_mean", "state_leave_one_out", "group_turn_mean")),
    ({"name": "rtg_turn", "gamma": 0.95}, "leave_one_out"),
    ("rtg_turn", "peer_returns"),
    *(("state_pooled", b) for b in ("none", "leave_one_out", "state_leave_one_out", "peer_returns")),
    *(("state_values", b) for b in ("leave_one_out", "state_leave_one_out", "peer_returns")),
    ("mc_turn", "mc_value"),
    ("rtg_turn", "value"),
    *(({"name": "gae_token", "lam": lam}, "value") for lam in (1.0, 0.95, 0.0)),
    ({"name": "gae_turn", "lam": 0.95}, "value"),
    ("gae_bilevel", "value"),
)
ONE_CHOICE: Mapping[str, Overrides] = {
    "scale group_std": {"scale": "group_std"},
    "scale batch_std": {"scale": "batch_std"},
    "scale whiten, sequence": {"scale": {"name": "whiten", "level": "sequence"}},
    "scale whiten, token": {"scale": {"name": "whiten", "level": "token"}},
    "scale group_mean": {"scale": "group_mean"},
    "scale nonzero_frac": {"scale": "nonzero_frac"},
    "turn_mean and turn_std": {"credit": "rtg_turn", "baseline": "turn_mean", "scale": "turn_std"},
    "state_mean and state_std": {"credit": "rtg_turn", "baseline": "state_mean", "scale": "state_std"},
    "term anchor_state": {"terms": ["anchor_state"]},
    "term anchor_state, centred only": {"terms": [{"name": "anchor_state", "gamma": 1.0, "std": False}]},
    "term turn_relative": {"terms": ["turn_relative"]},
    "term turn_relative, centred only": {"terms": [{"name": "turn_relative", "std": False, "last": True}]},
    "aggregate token_mean": {"aggregate": "token_mean"},
    "aggregate seq_mean_token_mean": {"aggregate": "seq_mean_token_mean"},
    "aggregate seq_sum_const": {"aggregate": {"name": "seq_sum_const", "length": 8}},
    "aggregate prompt_mean": {"aggregate": "prompt_mean"},
    "aggregate turn_mean": {"aggregate": "turn_mean"},
    "ratio turn": {"ratio": "turn"},
    "ratio sequence_product": {"ratio": "sequence_product", "aggregate": "seq_mean_token_mean"},
    "ratio sequence_geo": {"ratio": "sequence_geo", "aggregate": "seq_mean_token_mean"},
    "filter zero_variance_drop": {"filters": ["zero_variance_drop"]},
    "filter truncated_mask": {"filters": ["truncated_mask"]},
    "filter void_turn_drop": {"filters": ["void_turn_drop"]},
}
TREES: Mapping[str, Overrides] = {
    "tree, no baseline": {"credit": "tree", "baseline": "none"},
    "tree, leave_one_out": {"credit": "tree", "baseline": "leave_one_out"},
    "outcome_broadcast, no baseline": {"baseline": "none"},
    "outcome_broadcast, leave_one_out": {"baseline": "leave_one_out"},
    "outcome_broadcast, ema": {"baseline": "ema"},
    "outcome_broadcast, ema, term tree_intra": {"baseline": "ema", "terms": [{"name": "tree_intra", "std": False}]},
}
BLURRED: Mapping[str, Overrides] = {
    "outcome_broadcast, leave_one_out": {},
    "rtg_turn, leave_one_out": {"credit": "rtg_turn"},
    "rtg_turn, state_mean": {"credit": "rtg_turn", "baseline": "state_mean"},
    "rtg_turn, state_leave_one_out": {"credit": "rtg_turn", "baseline": "state_leave_one_out"},
    "state_pooled, leave_one_out": {"credit": "state_pooled"},
    "state_pooled, state_leave_one_out": {"credit": "state_pooled", "baseline": "state_leave_one_out"},
    "rtg_turn, peer_returns": {"credit": "rtg_turn", "baseline": "peer_returns"},
    "state_values, peer_returns": {"credit": "state_values", "baseline": "peer_returns"},
    "term anchor_state, centred only": {"terms": [{"name": "anchor_state", "gamma": 1.0, "std": False}]},
}
_SEQUENCE = {"ratio": "sequence_product", "aggregate": "seq_mean_token_mean"}
NO_CAP = 1e6
CORRECTIONS: Mapping[str, Overrides] = {
    "none": {},
    "token_tis, cap 2": {"mismatch": [{"name": "token_tis", "cap": 2.0}]},
    "token_tis, no cap": {"mismatch": [{"name": "token_tis", "cap": NO_CAP}]},
    "token_mask 0.5 to 5": {"mismatch": ["token_mask"]},
    "sequence_tis, cap 2": {"mismatch": [{"name": "sequence_tis", "cap": 2.0}]},
    "sequence_tis, cap 5": {"mismatch": [{"name": "sequence_tis", "cap": 5.0}]},
    "sequence_tis, no cap": {"mismatch": [{"name": "sequence_tis", "cap": NO_CAP}]},
    "sequence_mask 0 to 3": {"mismatch": ["sequence_mask"]},
    "geometric_mask 0.99 to 1.01": {"mismatch": ["geometric_mask"]},
    "opsm": {"mismatch": ["opsm"]},
    "anchor behavior, ratio token": {"anchor": "behavior"},
    "anchor behavior, ratio token, clip 0.2": {"anchor": "behavior", "gate": "clip"},
    "anchor behavior, ratio token, detached_clip": {
        "anchor": "behavior",
        "gate": {"name": "detached_clip", "cap": 2.0},
    },
    "anchor behavior, ratio token, prob_mask": {"anchor": "behavior", "gate": "prob_mask"},
    "anchor behavior, ratio sequence_product": {"anchor": "behavior", **_SEQUENCE},
    "anchor behavior, ratio sequence_geo": {"anchor": "behavior", **_SEQUENCE, "ratio": "sequence_geo"},
    "anchor behavior, ratio sequence_product, positive_free": {
        "anchor": "behavior",
        "ratio": "sequence_product",
        "gate": "positive_free",
    },
    "rtg_turn and sequence_tis, no cap": {
        "credit": "rtg_turn",
        "mismatch": [{"name": "sequence_tis", "cap": NO_CAP}],
    },
    "rtg_turn and token_tis, no cap": {"credit": "rtg_turn", "mismatch": [{"name": "token_tis", "cap": NO_CAP}]},
}


def pieces() -> dict[str, Overrides]:
    """Credits with baselines, and every other choice alone."""
    out: dict[str, Overrides] = {}
    for credit, baseline in CREDITS_AND_BASELINES:
        critic = {"critic": _CRITIC} if baseline == "value" else {}
        out[f"{_brief(credit)}, {_brief(baseline)}"] = {"credit": credit, "baseline": baseline, **critic}
    return {**out, **ONE_CHOICE}


def specs(table: Mapping[str, Overrides]) -> Iterator[tuple[str, ObjectiveSpec]]:
    """`rloo`, with a ratio, changed as each entry says."""
    for name, overrides in table.items():
        yield name, load_spec("rloo", {"ratio": "token", **overrides})


def _brief(choice: Any) -> str:
    if isinstance(choice, str):
        return choice if choice != "none" else "no baseline"
    return " ".join([choice["name"], *(f"{key} {value:g}" for key, value in choice.items() if key != "name")])
