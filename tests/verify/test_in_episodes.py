"""A verifier in an environment's reward."""

from __future__ import annotations

from agentrl.engine.scripted import ScriptedEngine, canned
from agentrl.env import Episode, Task, ToolEnv, reward
from agentrl.render.parsers import HermesParser
from agentrl.render.renderer import Renderer
from agentrl.render.tokenizer import ByteTokenizer
from agentrl.rollout.episode import Job
from agentrl.rollout.play import play
from agentrl.rollout.settings import RetrySettings, RolloutSettings
from agentrl.trajectory import Outcome
from agentrl.verify import Verifier


class Asks(ToolEnv):
    """The task's answer is the gold one."""

    @reward(kind="outcome")
    async def right(self, task: Task, episode: Episode) -> float:
        judged = await Verifier(symbolic=False).verify(task.answer, episode.final_text)
        return float(judged.correct)


async def test_a_broken_gold_answer_fails_its_episode_and_not_the_run() -> None:
    settings = RolloutSettings(retry=RetrySettings(verifier=0), max_tokens_per_episode=9999)
    jobs = [Job(Task("What is it?", answer=gold), "g", i) for i, gold in enumerate(("24", "", "25"))]
    played = await play(
        jobs,
        make_env=Asks,
        engine=ScriptedEngine(canned(["#### 24"])),
        renderer=Renderer(ByteTokenizer(), HermesParser()),
        settings=settings,
    )
    right, broken, wrong = (each.trajectory for each in played)
    assert (right.reward, broken.reward, wrong.reward) == (1.0, None, 0.0)
    assert broken.outcome is Outcome.FAILED_VERIFIER
    assert "cannot use the gold answer ''" in (broken.error or "")
