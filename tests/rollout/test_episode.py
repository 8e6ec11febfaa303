"""Episodes: tokens are the truth, and every way to end has its outcome."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentrl.engine.base import Request
from agentrl.engine.scripted import ScriptedEngine, canned
from agentrl.env.base import Env, StepResult
from agentrl.env.task import Task
from agentrl.errors import ConfigError, DataError, EngineFailure, SandboxFailure, ToolFailure, VerifierFailure
from agentrl.messages import AssistantMessage, Message, SystemMessage, ToolMessage, UserMessage
from agentrl.render.parsers import HermesParser
from agentrl.render.renderer import Renderer
from agentrl.render.tokenizer import ByteTokenizer
from agentrl.rollout.episode import Job, run_episode
from agentrl.rollout.settings import RolloutSettings
from agentrl.rollout.turnstile import Turnstile
from agentrl.trajectory import Outcome, Trajectory
from tests.rollout.play_engine import RandomEngine

RENDERER = Renderer(ByteTokenizer(), HermesParser())
SETTINGS = RolloutSettings(max_tokens_per_episode=100_000, max_tokens_per_turn=50)


class Chatter(Env):
    """Answers with random messages for `length` turns, each worth 0.25, and names its states."""

    max_turns = 20

    def __init__(self, length: int = 3, seed: int = 0) -> None:
        self.length, self.rng, self.turn = length, random.Random(seed), 0
        self.concluded: list[AssistantMessage | None] = []

    @property
    def reward_kinds(self) -> Mapping[str, Any]:
        return {"step": "process", "late": "outcome"}

    async def reset(
        self, *, seed: int | None = None, options: Mapping[str, Any] | None = None
    ) -> tuple[Sequence[Message], Mapping[str, Any]]:
        self.turn = 0
        return [SystemMessage(content="be brief"), UserMessage(content="go")], {"state_id": "s0"}

    async def step(self, action: AssistantMessage) -> StepResult:
        self.turn += 1
        text = "".join(self.rng.choice("ab é<|im_end|>\n") for _ in range(self.rng.randrange(9)))
        message = ToolMessage(content=text) if self.rng.random() < 0.5 else UserMessage(content=text)
        info = {"rewards": {"step": 0.25}, "state_id": f"s{self.turn}", "metrics": {"seen": float(self.turn)}}
        return StepResult([message], 0.25, self.turn >= self.length, False, info)

    async def conclude(self, action: AssistantMessage | None) -> Mapping[str, float]:
        self.concluded.append(action)
        return {"late": 0.5}


async def play(env: Env, engine: Any, limits: RolloutSettings = SETTINGS, seed: int = 0) -> Trajectory:
    return await run_episode(Job(Task("go"), "g", seed), env, engine, RENDERER, limits, episode_id="e")


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 8), st.integers(40, 400))
def test_the_stream_is_what_the_engine_was_fed_and_sampled(seed: int, length: int, budget: int) -> None:
    engine = RandomEngine(seed=seed)
    limits = RolloutSettings(max_tokens_per_episode=120 + budget, max_tokens_per_turn=50)
    trajectory = asyncio.run(play(Chatter(length, seed), engine, limits, seed))
    (segment,) = trajectory.segments
    calls = engine.calls["e"]
    assert len(calls) == len(trajectory.turns) >= 1
    sampled = np.zeros(len(segment), bool)
    for turn, (prompt, completion) in zip(trajectory.turns, calls, strict=True):
        assert np.array_equal(segment.token_ids[: turn.span.start], prompt)
        assert np.array_equal(segment.token_ids[turn.span], completion.token_ids)
        assert np.array_equal(segment.logprobs[turn.span], completion.logprobs)
        assert np.array_equal(segment.versions[turn.span], completion.versions)
        sampled[turn.span] = True
    assert np.array_equal(segment.action_mask, sampled)
    assert not segment.logprobs[~sampled].any()
    assert (segment.versions[~sampled] == -1).all()
    assert len(segment) <= limits.max_tokens_per_episode or trajectory.outcome is Outcome.TRUNCATED_TOKENS
    assert trajectory.reward == pytest.approx(sum(sum(turn.rewards.values()) for turn in trajectory.turns))
    assert engine.released == ["e"]


async def test_calls_and_unreadable_calls_are_counted_over_all_turns() -> None:
    good, bad = '<tool_call>{"name": "f"}</tool_call>', "<tool_call>{'name': 'f'}</tool_call>"
    roomy = RolloutSettings(max_tokens_per_episode=100_000, max_tokens_per_turn=500)
    trajectory = await play(Chatter(3), ScriptedEngine(canned([good + bad, "words", bad])), roomy)
    assert (trajectory.metrics["calls"], trajectory.metrics["unreadable_calls"]) == (3.0, 2.0)
    cut = RolloutSettings(max_tokens_per_episode=100_000, max_tokens_per_turn=20)
    trajectory = await play(Chatter(3), ScriptedEngine(canned([good])), cut)
    assert trajectory.outcome is Outcome.TRUNCATED_TOKENS
    assert (trajectory.metrics["calls"], trajectory.metrics["unreadable_calls"]) == (1.0, 1.0)


async def test_a_terminated_episode() -> None:
    engine = ScriptedEngine(canned(["a", "b", "c"]))
    trajectory = await play(Chatter(3), engine)
    assert trajectory.outcome is Outcome.TERMINATED
    assert trajectory.reward == 0.75
    assert [turn.rewards for turn in trajectory.turns] == [{"step": 0.25}] * 3
    assert [turn.state_id for turn in trajectory.turns] == ["s0", "s1", "s2"]
    assert trajectory.metrics == {"seen": 3.0, "turns": 3.0, "calls": 0.0, "unreadable_calls": 0.0}
    text = ByteTokenizer().decode(trajectory.segments[0].token_ids.tolist())
    assert text.startswith("<|im_start|>system\nbe brief")
    assert text.endswith("<|im_start|>assistant\nc<|im_end|>")
    said = [m["content"] for m in trajectory.messages if m["role"] == "assistant"]
    assert said == ["a", "b", "c"]
    assert len(trajectory.messages) == 2 + 3 * 2  # the prompt's two, and every action with its answer


async def test_the_turn_limit_truncates_and_what_is_due_is_paid() -> None:
    env = Chatter(10)
    trajectory = await play(env, ScriptedEngine("null"), RolloutSettings(max_turns=2, max_tokens_per_episode=9999))
    assert trajectory.outcome is Outcome.TRUNCATED_TURNS
    assert len(trajectory.turns) == 2
    assert trajectory.turns[-1].rewards == {"step": 0.25, "late": 0.5}
    assert trajectory.reward == 1.0
    assert trajectory.segments[0].action_mask[-1]  # nothing is rendered that no action follows


async def test_an_action_cut_by_its_token_limit_is_not_stepped_and_keeps_its_mask() -> None:
    env = Chatter(10)
    limits = RolloutSettings(max_tokens_per_turn=5, max_tokens_per_episode=9999)
    trajectory = await play(env, ScriptedEngine(canned(["ok", "far too long"])), limits)
    assert trajectory.outcome is Outcome.TRUNCATED_TOKENS
    assert [turn.finish_reason for turn in trajectory.turns] == ["stop", "length"]
    assert env.turn == 1
    assert env.concluded == [AssistantMessage(content="far t")]
    last = trajectory.turns[-1]
    assert ByteTokenizer().decode(trajectory.segments[0].token_ids[last.span].tolist()) == "far t"
    assert trajectory.segments[0].action_mask[last.span].all()
    assert last.rewards == {"late": 0.5}


async def test_no_room_after_an_observation_truncates() -> None:
    prompt = len(RENDERER.prompt([SystemMessage(content="be brief"), UserMessage(content="go")], ()))
    limits = RolloutSettings(max_tokens_per_episode=prompt + 10, max_tokens_per_turn=8)
    trajectory = await play(Chatter(10), ScriptedEngine(canned(["abcdef"])), limits)
    assert trajectory.outcome is Outcome.TRUNCATED_TOKENS
    assert len(trajectory.turns) == 1
    assert trajectory.reward == 0.75


async def test_a_prompt_without_room_is_truncated_and_says_what_to_raise() -> None:
    """Not a failure: a policy whose context is too small has not solved the task."""
    trajectory = await play(Chatter(), ScriptedEngine("null"), RolloutSettings(max_tokens_per_episode=10))
    assert trajectory.outcome is Outcome.TRUNCATED_TOKENS
    assert (trajectory.reward, trajectory.turns) == (0.0, ())
    assert "raise rollout.max_tokens_per_episode" in (trajectory.error or "")


def called(name: str = "add") -> str:
    return f'<tool_call>\n{{"name": "{name}", "arguments": {{}}}}\n</tool_call>'


class Tooled(Chatter):
    """Offers a tool, and ends when it is told "done"."""

    tool_schemas = ({"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}},)

    async def step(self, action: AssistantMessage) -> StepResult:
        result = await super().step(action)
        return result._replace(terminated=action.content == "done")


@pytest.mark.parametrize(
    ("env", "said", "void"),
    [
        (Tooled, [called(), "done"], [False, False]),
        (Tooled, ["let me see", called(), "done"], [True, False, False]),
        (Tooled, ["let me see " + called(), "done"], [False, False]),
        (Tooled, ["<tool_call>\nadd\n</tool_call>", "done"], [False, False]),  # answered with what is wrong with it
        (Tooled, ["", "done"], [True, False]),
        (Tooled, ["<think>hm</think>", "done"], [True, False]),
        (Tooled, ["<think>hm</think>done"], [False]),
        (Chatter, ["a", "b", "c"], [False, False, False]),  # words are all that there is to say
        (Chatter, ["a", "", "<think>hm</think>"], [False, True, True]),
    ],
)
async def test_a_turn_without_call_or_answer_is_void(env: type[Chatter], said: list[str], void: list[bool]) -> None:
    trajectory = await play(env(3), ScriptedEngine(canned(said)), RolloutSettings(max_tokens_per_episode=9999))
    assert [turn.void for turn in trajectory.turns] == void
    assert trajectory.outcome is Outcome.TERMINATED


@pytest.mark.parametrize(
    ("env", "said", "void"),
    [
        (Tooled, "d" * 99, True),  # an answer cut short is none
        (Chatter, "d" * 99, True),
        (Tooled, called("a" * 99), True),  # nor is a call
        (Tooled, called() + "d" * 99, False),
    ],
)
async def test_a_turn_cut_by_its_token_limit_is_void_unless_it_holds_a_call(
    env: type[Chatter], said: str, void: bool
) -> None:
    limits = RolloutSettings(max_tokens_per_turn=60, max_tokens_per_episode=9999)
    trajectory = await play(env(3), ScriptedEngine(canned([said])), limits)
    assert [turn.void for turn in trajectory.turns] == [void]
    assert trajectory.outcome is Outcome.TRUNCATED_TOKENS


async def test_words_at_the_last_turn_of_a_game_with_tools_are_void_unless_they_end_it() -> None:
    limits = RolloutSettings(max_turns=2, max_tokens_per_episode=9999)
    trajectory = await play(Tooled(), ScriptedEngine(canned([called(), "well"])), limits)
    assert trajectory.outcome is Outcome.TRUNCATED_TURNS
    assert [turn.void for turn in trajectory.turns] == [False, True]
    assert trajectory.turns[-1].rewards == {"step": 0.25, "late": 0.5}


async def test_a_greedy_job_is_sampled_at_temperature_0() -> None:
    seen: list[float] = []
    engine = RandomEngine(before=lambda request: seen.append(request.sampling.temperature))
    limits = RolloutSettings(max_tokens_per_episode=9999, temperature=0.7)
    for greedy in (False, True):
        await run_episode(Job(Task("go"), "g", 0, greedy=greedy), Chatter(1), engine, RENDERER, limits, episode_id="e")
    assert seen == [0.7, 0.0]


class Breaking(Chatter):
    """Breaks in its second step, as it is told to."""

    def __init__(self, what: object) -> None:
        super().__init__(5)
        self.what = what

    async def step(self, action: AssistantMessage) -> StepResult:
        result = await super().step(action)
        if self.turn == 2:
            if isinstance(self.what, Exception):
                raise self.what
            if self.what == "hang":
                await asyncio.sleep(60)
            if self.what == "nan":
                return result._replace(reward=float("nan"), info={"rewards": {"step": float("nan")}})
            if self.what == "sum":
                return result._replace(reward=0.75)
        return result


@pytest.mark.parametrize(
    ("what", "outcome", "error"),
    [
        (ValueError("boom"), Outcome.FAILED_ENV, "step of Breaking: ValueError: boom"),
        (TimeoutError("its own"), Outcome.FAILED_ENV, "TimeoutError: its own"),
        (ToolFailure("gone"), Outcome.FAILED_TOOL, "ToolFailure: gone"),
        (SandboxFailure("gone"), Outcome.FAILED_SANDBOX, "SandboxFailure: gone"),
        (VerifierFailure("gone"), Outcome.FAILED_VERIFIER, "VerifierFailure: gone"),
        ("nan", Outcome.FAILED_VERIFIER, "finite"),
        ("sum", Outcome.FAILED_ENV, "reward 0.75, but its parts"),
        ("hang", Outcome.FAILED_ENV, "step did not return within 2.0 s"),
    ],
)
async def test_broken_machinery_is_a_failure_and_never_a_zero(what: object, outcome: Outcome, error: str) -> None:
    limits = RolloutSettings(max_tokens_per_episode=9999, turn_deadline_s=2.0 if what == "hang" else 60.0)
    trajectory = await play(Breaking(what), ScriptedEngine("null"), limits)
    assert trajectory.outcome is outcome
    assert trajectory.reward is None
    assert error in (trajectory.error or "")
    assert len(trajectory.turns) == 2  # what was played is kept


class Returning(Chatter):
    """Returns from its first step what it is told to."""

    def __init__(self, change: Any) -> None:
        super().__init__(5)
        self.change = change

    async def step(self, action: AssistantMessage) -> StepResult:
        return self.change(await super().step(action))


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda r: r[:3], "step must return StepResult"),
        (lambda r: r._replace(observation="hello"), "new messages as a sequence, got 'hello'"),
        (lambda r: r._replace(observation=["hello"]), "must give messages"),
        (lambda r: r._replace(info=None), "info as a mapping"),
        (
            lambda r: r._replace(info={"rewards": {"other": 0.25}}),
            "'other', which Returning.reward_kinds does not name",
        ),
        (lambda r: r._replace(info={"rewards": {"step": "1"}}), "a finite number is wanted"),
        (lambda r: r._replace(reward=None), "gave reward None"),
        (lambda r: r._replace(info={**r.info, "metrics": {"a": "text"}}), "map names to numbers"),
        (lambda r: r._replace(terminated=1), "must be bools"),
    ],
)
async def test_a_breach_of_the_contract_is_a_failed_episode(change: Any, error: str) -> None:
    trajectory = await play(Returning(change), ScriptedEngine("null"))
    assert trajectory.outcome in (Outcome.FAILED_ENV, Outcome.FAILED_VERIFIER)
    assert error in (trajectory.error or "")


@pytest.mark.parametrize("method", ["reset", "step"])
async def test_an_environment_that_outlasts_the_episode_is_a_failure(
    method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Never a truncated zero, and never asked to conclude while it is still at it."""
    env = Chatter(5)

    async def hang(*args: object, **keywords: object) -> None:
        await asyncio.sleep(60)

    monkeypatch.setattr(env, method, hang)
    limits = RolloutSettings(max_tokens_per_episode=9999, episode_deadline_s=1.5)
    trajectory = await play(env, ScriptedEngine("null"), limits)
    assert (trajectory.outcome, trajectory.reward) == (Outcome.FAILED_ENV, None)
    assert f"{method} had not returned when the episode's 1.5 s were over" in (trajectory.error or "")
    assert env.concluded == []


async def test_more_turns_than_the_environment_has_are_refused() -> None:
    with pytest.raises(ConfigError, match="ends after 20 turns"):
        await play(Chatter(), ScriptedEngine("null"), RolloutSettings(max_turns=21))


async def test_a_users_mistake_stops_the_run() -> None:
    with pytest.raises(DataError, match="no file"):
        await play(Breaking(DataError("no file")), ScriptedEngine("null"))


async def test_an_engine_that_breaks_or_hangs() -> None:
    def breaks(request: Request) -> None:
        raise EngineFailure("out of memory")

    async def hangs() -> None:
        await asyncio.sleep(60)

    broken = await play(Chatter(), RandomEngine(before=breaks))
    assert (broken.outcome, broken.error) == (Outcome.FAILED_ENGINE, "EngineFailure: out of memory")
    limits = RolloutSettings(max_tokens_per_episode=9999, turn_deadline_s=1.5)
    engine = RandomEngine(before=lambda request: hangs())
    hung = await play(Chatter(), engine, limits)
    assert hung.outcome is Outcome.FAILED_ENGINE
    assert "complete did not return within 1.5 s" in (hung.error or "")
    assert engine.running == 0


async def test_the_episodes_deadline_truncates() -> None:
    calls = itertools.count()
    limits = RolloutSettings(max_tokens_per_episode=9999, episode_deadline_s=2.0)
    engine = RandomEngine(stop=1.0, before=lambda request: asyncio.sleep(0 if next(calls) < 2 else 60))
    trajectory = await play(Chatter(50), engine, limits)
    assert trajectory.outcome is Outcome.TRUNCATED_TIME
    assert len(trajectory.turns) == 2
    assert trajectory.turns[-1].rewards["late"] == 0.5


@pytest.mark.parametrize(
    ("busy_at", "outcome", "turns", "reward"),
    [
        (1, Outcome.TRUNCATED_TIME, 0, 0.0),
        (2, Outcome.TRUNCATED_TIME, 0, 0.0),
        (3, Outcome.TRUNCATED_TIME, 1, 0.75),  # of the step, and what is late
        (5, Outcome.TERMINATED, 2, 0.5),  # the environment had ended it: there is nothing to wait for
    ],
)
async def test_an_episode_whose_time_ends_while_it_waits_for_the_processor_keeps_what_was_answered(
    busy_at: int, outcome: Outcome, turns: int, reward: float
) -> None:
    class Busy(Turnstile):
        passed = 0

        async def __call__(self) -> None:
            self.passed += 1
            if self.passed == busy_at:
                await asyncio.sleep(60)

    limits = RolloutSettings(max_tokens_per_episode=9999, episode_deadline_s=1.5)
    job, engine = Job(Task("go"), "g", 0), RandomEngine(stop=1.0)
    trajectory = await run_episode(job, Chatter(2), engine, RENDERER, limits, episode_id="e", turnstile=Busy())
    assert (trajectory.outcome, len(trajectory.turns), trajectory.reward) == (outcome, turns, reward)


async def test_cancelling_an_episode_stops_the_engine_and_releases_it() -> None:
    engine = RandomEngine(before=lambda request: asyncio.sleep(60))
    task = asyncio.create_task(play(Chatter(), engine))
    while not engine.running:  # noqa: ASYNC110
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (engine.running, engine.released) == (0, ["e"])


async def test_an_answer_without_room_is_not_in_the_record() -> None:
    """The policy never sees it, so the learner does not either."""

    class Floods(Chatter):
        async def step(self, action: AssistantMessage) -> StepResult:
            return (await super().step(action))._replace(observation=[UserMessage(content="x" * 5000)])

    limits = RolloutSettings(max_tokens_per_episode=1000)
    trajectory = await play(Floods(3), RandomEngine(stop=1.0), limits)
    assert trajectory.outcome is Outcome.TRUNCATED_TOKENS
    assert trajectory.turns[-1].rewards == {"step": 0.25, "late": 0.5}
    (segment,) = trajectory.segments
    assert len(segment) == trajectory.turns[-1].span.stop < 1000


@pytest.mark.parametrize(
    "error", [BaseExceptionGroup("all", [KeyError("x")]), type("Panic", (BaseException,), {})("x")]
)
async def test_whatever_an_environment_raises_is_a_failed_episode(error: BaseException) -> None:
    class Raises(Chatter):
        async def step(self, action: AssistantMessage) -> StepResult:
            raise error

    trajectory = await play(Raises(3), RandomEngine(stop=1.0))
    assert (trajectory.outcome, trajectory.reward) == (Outcome.FAILED_ENV, None)


async def test_an_error_that_cannot_be_told_is_a_failed_episode() -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no words")

    class Raises(Chatter):
        async def step(self, action: AssistantMessage) -> StepResult:
            raise Mute

    assert (await play(Raises(3), RandomEngine(stop=1.0))).error == "EnvFailure: step of Raises: Mute"
