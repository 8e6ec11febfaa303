"""A recipe small enough for tests: the real loop, model, engine and environment, in seconds."""

from __future__ import annotations

from pathlib import Path

import pytest

SMALL = """
name = "small"
seed = {seed}

[env]
id = "{env}"

[policy.tiny]
hidden = 32
layers = 2
heads = 2
kv_heads = 1
head_dim = 16
merges = 20

[engine]
max_context = 192

[warmup]
steps = 8
episodes_per_step = 16

[warmup.optimizer]
lr = 0.01

[rollout]
groups_per_step = 3
group_size = 4
max_tokens_per_turn = 12
max_tokens_per_episode = 192

[learner.optimizer]
lr = 1e-3

[train]
steps = 6
checkpoint_every = 2

[evaluation]
tasks = 12
every = 3

[launch]
device = "cpu"
threads = 1
"""


def small_recipe() -> str:
    return SMALL.format(seed=0, env=f"{Path(__file__).with_name('letters.py')}:Letters")


@pytest.fixture
def recipe_file(tmp_path: Path) -> Path:
    path = tmp_path / "small.toml"
    path.write_text(small_recipe())
    return path
