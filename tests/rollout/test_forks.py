"""Episodes whose template rewrites the history: several segments, each fed as the template gives it, counted once."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agentrl.engine.scripted import ScriptedEngine, canned
from agentrl.env.base import Env, StepResult
from agentrl.env.task import Task
from agentrl.messages import AssistantMessage, Message, UserMessage, from_dicts
from agentrl.objective import Batch, Objective, Scores, load_spec
from agentrl.render.parsers import HermesParser
from agentrl.render.renderer import Renderer
from agentrl.render.tokenizer import ByteTokenizer, Chat
from agentrl.rollout.episode import Job, run_episode
from agentrl.rollout.records import read_trajectories, write_trajectories
from agentrl.rollout.settings import RolloutSettings
from agentrl.train.metrics import env_metrics
from agentrl.trajectory import Group, Trajectory

THOUGHT = AssistantMessage(content="Go.", thinking="which way?")
PLAIN = AssistantMessage(content="Go.")


class Forgetful(ByteTokenizer):
    """Leaves thinking out before the last question."""

    def chat(self, messages: Chat, tools: Chat | None, add_generation_prompt: bool) -> str:
        last = max((i for i, message in enumerate(messages) if message["role"] == "user"), default=-1)
        kept = [
            {key: value for key, value in message.items() if i > last or key != "reasoning_content"}
            for i, message in enumerate(messages)
        ]
        return super().chat(kept, tools, add_generation_prompt)


RENDERER = Renderer(Forgetful(), HermesParser())


class Questions(Env):
    """Asks four times; the answer to each is worth its number."""

    max_turns = 4

    @property
    def reward_kinds(self) -> Mapping[str, Any]:
        return {"step": "process"}

    async def reset(
        self, *, seed: int | None = None, options: Mapping[str, Any] | None = None
    ) -> tuple[Sequence[Message], Mapping[str, Any]]:
        self.turn = 0
        return [UserMessage(content="Where to?")], {}

    async def step(self, action: AssistantMessage) -> StepResult:
        self.turn += 1
        reward = float(self.turn)
        return StepResult(
            [UserMessage(content="And now?")], reward, self.turn == 4, False, {"rewards": {"step": reward}}
        )


def play(lines: Sequence[AssistantMessage], history: str, **limits: Any) -> Trajectory:
    settings = RolloutSettings(**{"max_tokens_per_episode": 10_000, "history": history, **limits})
    engine = ScriptedEngine(canned(lines))
    return asyncio.run(run_episode(Job(Task("go"), "g", 0), Questions(), engine, RENDERER, settings, episode_id="e"))


def test_each_segment_begins_with_what_the_template_gives_and_keeps_what_was_sampled() -> None:
    trajectory = play([THOUGHT, PLAIN, THOUGHT, PLAIN], "template")
    assert [turn.rendered for turn in trajectory.turns] == ["exact", "forked", "exact", "forked"]
    assert [turn.segment for turn in trajectory.turns] == [0, 1, 1, 2]
    said = from_dicts(list(trajectory.messages))
    actions = [i for i, message in enumerate(said) if isinstance(message, AssistantMessage)]
    for turn, upto in zip(trajectory.turns, actions, strict=True):
        segment = trajectory.segments[turn.segment]
        assert segment.token_ids[: turn.span.start].tolist() == RENDERER.prompt(said[:upto]).tolist()
        assert segment.token_ids[turn.span].tolist() == RENDERER.encode_action(said[upto]).tolist()  # type: ignore[arg-type]
        assert segment.action_mask[turn.span].all()
    assert trajectory.n_action_tokens == sum(turn.span.stop - turn.span.start for turn in trajectory.turns)
    assert trajectory.reward == 10


def test_append_keeps_one_segment_and_says_so() -> None:
    trajectory = play([THOUGHT, PLAIN, THOUGHT, PLAIN], "append")
    assert [turn.rendered for turn in trajectory.turns] == ["exact", "kept", "kept", "kept"]
    (segment,) = trajectory.segments
    assert RENDERER.tokenizer.decode(segment.token_ids.tolist()).count("which way?") == 2
    plain = play([PLAIN] * 4, "template")
    assert [turn.rendered for turn in plain.turns] == ["exact"] * 4
    assert len(plain.segments) == 1


@pytest.mark.parametrize("limit", range(60, 400, 7))
def test_a_cut_after_a_fork_leaves_no_segment_without_an_action(limit: int) -> None:
    trajectory = play([THOUGHT], "template", max_tokens_per_episode=limit)
    assert all(segment.action_mask.any() for segment in trajectory.segments)
    assert all(len(segment) <= limit for segment in trajectory.segments)
    assert {turn.segment for turn in trajectory.turns} == set(range(len(trajectory.segments)))
    Batch.from_groups([Group("g", "t", (trajectory,))])


@pytest.mark.parametrize("preset", ["grpo", "rloo", "gtpo_turn"])
def test_forked_episodes_count_once_in_their_group(preset: str) -> None:
    """The same episodes, forked or not, get the same advantages; a mean over segments would differ."""
    lines = [[THOUGHT] * 4, [PLAIN] * 4, [THOUGHT, PLAIN, PLAIN, PLAIN], [PLAIN, PLAIN, THOUGHT, PLAIN]]
    method, got, rows = Objective(load_spec(preset)), [], []
    for history in ("template", "append"):
        played = [play(said, history, max_turns=turns) for said, turns in zip(lines, (4, 1, 3, 2), strict=True)]
        batch = method.select([Group("g", "go", tuple(played))])
        credited = method.credit(batch, Scores(logprobs=np.zeros(batch.n_tokens, np.float32)))
        got.append(credited.advantages[batch.action_mask])
        rows.append(batch.n_rows)
    assert rows == [4 + 3 + 1, 4]
    assert np.array_equal(got[0], got[1])
    assert got[0].any()


def test_how_prompts_came_about_is_recorded_and_logged(tmp_path: Path) -> None:
    forked, plain = play([THOUGHT, PLAIN, THOUGHT, PLAIN], "template"), play([PLAIN], "template")
    path = write_trajectories(tmp_path / "a.parquet", [forked, plain])
    assert [[turn.rendered for turn in t.turns] for t in read_trajectories(path)] == [
        ["exact", "forked", "exact", "forked"],
        ["exact"] * 4,
    ]
    metrics = env_metrics([Group("g", "go", (forked, plain))])
    assert {k: v for k, v in metrics.items() if k.startswith("rendered")} == {
        "rendered_exact": 0.75,
        "rendered_forked": 0.25,
    }
    assert not any(k.startswith("rendered") for k in env_metrics([Group("g", "go", (plain,))]))
