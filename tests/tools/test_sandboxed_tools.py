"""The python and shell tools on real sandboxes: state, output, limits, lost sessions, failures, and nothing left."""

from __future__ import annotations

import asyncio
import gc
import os
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest

from agentrl import AssistantMessage
from agentrl.engine.scripted import ScriptedEngine, canned
from agentrl.env import Tool, check_env
from agentrl.env.base import StepResult
from agentrl.env.tasks import TaskSource
from agentrl.errors import ConfigError, EnvDefinitionError, SandboxFailure
from agentrl.render.parsers import HermesParser
from agentrl.render.renderer import Renderer
from agentrl.render.tokenizer import ByteTokenizer
from agentrl.rollout.episode import Job
from agentrl.rollout.play import play
from agentrl.rollout.settings import RetrySettings, RolloutSettings
from agentrl.sandbox import Limits, SandboxPool, SessionLost, TierUnavailable
from agentrl.tools import sessions
from agentrl.tools.python import python, python_tool
from agentrl.tools.sessions import Sandbox
from agentrl.tools.shell import shell_tool
from agentrl.trajectory import Outcome
from tests.processes import children, left_since
from tests.sandbox.serving import TOKEN, serving, until
from tests.tools.coding import Coder, ask, call, said

RENDERER = Renderer(ByteTokenizer(), HermesParser())
SETTINGS = RolloutSettings(
    concurrency=64, max_tokens_per_episode=20_000, retry=RetrySettings(engine=0, env=0, tool=0, sandbox=0, verifier=0)
)


@pytest.fixture(autouse=True)
async def nothing_is_left() -> AsyncIterator[None]:
    before, descriptors = children(), len(os.listdir("/proc/self/fd"))
    yield
    assert left_since(before) == []
    await until(lambda: len(os.listdir("/proc/self/fd")) <= descriptors)


@pytest.fixture
async def env() -> AsyncIterator[Coder]:
    try:
        async with SandboxPool(tier="zygote", workers=1):
            pass
    except TierUnavailable as error:
        pytest.skip(str(error))
    env = Coder()
    await env.reset(seed=3)
    yield env
    await env.close()


async def test_state_stays_for_an_episode_and_no_longer(env: Coder) -> None:
    assert await ask(env, "python", "x = 20\nopen('f', 'w').write('here')\nx + 1") == "21"
    assert await ask(env, "python", "x * 2") == "40"
    assert await ask(env, "shell", "cat f; cd /tmp; Y=5") == "here"
    assert await ask(env, "shell", "pwd; echo $Y") == "/tmp\n5"
    await env.reset(seed=4)
    assert "NameError" in await ask(env, "python", "x")
    assert "No such file" in await ask(env, "shell", "cat f; echo $Y")


async def test_shells_go_with_their_sessions(env: Coder) -> None:
    for seed in (4, 5, 6):
        assert await ask(env, "shell", "echo 1") == "1"
        await env.reset(seed=seed)
    gc.collect()
    assert not list(sessions._shells)


async def test_an_error_is_shown_as_python_shows_it(env: Coder) -> None:
    shown = await ask(env, "python", "print('before')\n1 / 0")
    assert shown.startswith("before\nTraceback (most recent call last):\n")
    assert shown.endswith("ZeroDivisionError: division by zero")
    assert await ask(env, "python", "x = 1") == "(no output)"


async def test_long_output_keeps_head_and_tail_and_says_how_much_is_gone(env: Coder) -> None:
    shown = await ask(env, "python", "print('first' + 'x' * 20000 + 'last')\n1 / 0")
    assert shown.startswith("firstxxx")
    assert "characters left out ...]" in shown
    assert shown.endswith("ZeroDivisionError: division by zero")
    shown = await ask(env, "shell", "echo first; head -c 3000000 /dev/zero | tr '\\0' y; echo; echo last")
    head, _, rest = shown.partition("\n[... ")
    number, _, tail = rest.partition(" bytes left out ...]\n")
    assert (head[:7], tail[-5:]) == ("first\ny", "\nlast")
    assert len(head) + int(number) + len(tail) + 1 == len("first\n") + 3_000_000 + len("\nlast\n")


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("exit(3)", "the program has left: exit code 3"),
        ("import os\nos.abort()", "it crashed"),
        pytest.param(
            "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nwhile True: pass",
            "it was stopped after 4 s",
            marks=pytest.mark.slow,
        ),
        ("while True: print('x' * 9999)", "it printed more than it may"),
        ("x = b'x' * (600 << 20)\nimport time\ntime.sleep(9)", "it used more memory than it may"),
    ],
)
async def test_a_lost_session_is_told_in_words_and_a_new_one_begins(env: Coder, code: str, why: str) -> None:
    await ask(env, "python", "x = 1")
    shown = await ask(env, "python", code)
    assert f"[{why}. The session has ended: variables and files are gone" in shown
    assert "NameError" in await ask(env, "python", "x")
    assert await ask(env, "python", "1 + 1") == "2"


async def test_a_session_that_burnt_its_processor_time_is_told_in_words() -> None:
    burn = "import threading\ndef burn():\n    while True: pass\nthreading.Thread(target=burn, daemon=True).start()"
    env = Coder()
    env.extra_tools = (python_tool(wall_s=60, sandbox=Sandbox(limits=Limits(cpu_s=0.5, wall_s=60))),)
    await env.reset(seed=1)
    shown = await ask(env, "python", f"{burn}\nburn()")
    assert shown.startswith("[it used more processor time than it may. The session has ended")
    assert await ask(env, "python", f"{burn}\n1") == "1"
    with env._holdings.at_hand():
        session = await env._holdings.for_episode(*_held(env))
    await session._live.done
    assert "processor time limit. Its variables and files are gone" in await ask(env, "python", "2")
    await env.close()


async def test_a_call_that_is_late_is_interrupted_and_variables_stay(
    env: Coder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agentrl.sandbox.session._AFTER_INTERRUPT_S", 60.0)  # however busy the machine is
    shown = await ask(env, "python", "x = 5\nwhile True: pass")
    assert shown.endswith("[it was stopped after 4 s; variables and files are still there]")
    assert await ask(env, "python", "x") == "5"


async def test_how_commands_end(env: Coder) -> None:
    assert await ask(env, "shell", "echo out; echo err >&2; false") == "out\nerr\n[exit code 1]"
    assert await ask(env, "shell", "cat; read line; echo got $line") == "got"
    assert "syntax error" in await ask(env, "shell", "if then")
    assert "[the shell ended with exit code 7" in await ask(env, "shell", "echo bye > f; exit 7")
    assert "[it was killed after 4 s, and the shell with it" in await ask(
        env, "shell", "(setsid sleep 50 &) ; sleep 60"
    )
    assert await ask(env, "shell", "cat f; ps 2>/dev/null | grep -c sleep") == "bye\n0\n[exit code 1]"
    assert await ask(env, "shell", "exec >/dev/null") == "(no output)"
    assert await ask(env, "shell", "sleep 0.1; echo $((6 * 7)) > g; false") == "[exit code 1]"
    assert await ask(env, "python", "open('g').read()") == r"'42\n'"


async def test_calls_of_one_turn_run_in_order(env: Coder) -> None:
    calls = tuple(call("python", f"x = {n} if {n} == 0 else x + 1\nx", str(n)) for n in range(8))
    result = await env.step(AssistantMessage(tool_calls=calls))
    assert [message.content for message in result.observation] == [str(n) for n in range(8)]


async def test_a_cancelled_call_costs_the_session_and_the_model_is_told(env: Coder) -> None:
    await ask(env, "python", "x = 1")
    with env._holdings.at_hand():
        late = asyncio.create_task(env.tools["python"].call({"code": "import time\ntime.sleep(60)"}))
        await asyncio.sleep(0.2)
        late.cancel()
        with pytest.raises(asyncio.CancelledError):
            await late
    shown = await ask(env, "python", "2")
    assert shown.startswith("[the session has ended: closed. Its variables and files are gone; this is a new session.]")
    assert shown.endswith("\n2")


async def test_an_idle_session_is_begun_anew() -> None:
    env = Coder()
    env.extra_tools = (python_tool(sandbox=Sandbox(idle_s=0.1)),)
    await env.reset(seed=1)
    await ask(env, "python", "1")
    for _ in range(20):
        await asyncio.sleep(0.3)
        shown = await ask(env, "python", "1")
        if shown != "1":
            break
    assert "idle for 0.1 s. Its variables and files are gone" in shown
    await env.close()


async def test_the_tool_needs_an_episode() -> None:
    with pytest.raises(EnvDefinitionError, match="offer it as a tool of a ToolEnv"):
        await Tool.of(python).call({"code": "1"})


async def test_a_shell_where_no_program_may_be_started_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentrl.tools.sessions.open_pool", lambda **settings: SandboxPool(tier="landlock"))
    env = Coder()
    env.extra_tools = (shell_tool(sandbox=Sandbox()), python_tool())
    await env.reset(seed=1)
    with pytest.raises(SandboxFailure, match="which tier 'landlock' does not allow"):
        await ask(env, "shell", "true")
    await env.close()


async def test_sessions_may_be_on_a_server(tmp_path: Path) -> None:
    (tmp_path / "token").write_text(TOKEN)
    with serving() as server:
        sandbox = Sandbox(servers=(server.address,), token_file=str(tmp_path / "token"))
        env = Coder()
        env.extra_tools = (python_tool(sandbox=sandbox), shell_tool(sandbox=sandbox))
        await env.reset(seed=1)
        assert await ask(env, "shell", "echo 5 > f; cat f") == "5"
        assert await ask(env, "python", "x = open('f').read()\nx") == r"'5\n'"
        assert len(server.below()) > server.idle
        await env.reset(seed=2)
        await until(lambda: len(server.below()) == server.idle)
        await ask(env, "python", "1")
        server.kill()
        with pytest.raises(SandboxFailure):
            await ask(env, "python", "1")
        await env.close()


def test_what_a_sandbox_cannot_be() -> None:
    with pytest.raises(ConfigError, match="go together"):
        Sandbox(servers=("http://x:1",))


async def test_servers_of_the_environment_are_used_by_tools_that_say_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving() as server:
        monkeypatch.setenv("SANDBOX_RUNNER_ADDRESSES", server.address)
        monkeypatch.setenv("SANDBOX_RUNNER_TOKEN", TOKEN)
        env = Coder()
        await env.reset(seed=1)
        assert await ask(env, "python", "6 * 7") == "42"
        assert len(server.below()) > server.idle
        await env.close()


async def test_servers_without_their_tokens_file_are_a_fault_of_the_settings() -> None:
    env = Coder()
    env.extra_tools = (python_tool(sandbox=Sandbox(servers=("http://x:1",), token_file="/no/such/file")),)
    await env.reset(seed=1)
    with pytest.raises(ConfigError, match="/no/such/file"):
        await ask(env, "python", "1")
    await env.close()


async def test_a_session_that_cannot_be_had_in_time_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentrl.tools.sessions.OPEN_S", 0.001)
    env = Coder()
    await env.reset(seed=1)
    with pytest.raises(SandboxFailure, match=r"within 0\.001 s"):
        await ask(env, "python", "1")
    await env.close()


async def test_episodes_at_once_share_one_pool_and_leave_nothing(env: Coder) -> None:
    tasks = TaskSource(env, "train")
    jobs = [Job(tasks.task(index), f"g{index}", index) for index in range(48)]
    played = await play(
        jobs, make_env=Coder, engine=ScriptedEngine("oracle", latency_s=0.01), renderer=RENDERER, settings=SETTINGS
    )
    assert [each.trajectory.outcome for each in played] == [Outcome.TERMINATED] * 48
    assert [each.trajectory.reward for each in played] == [1.0] * 48


async def test_workers_killed_in_mid_call_are_failures_and_no_scores(env: Coder) -> None:
    class Counted(Coder):
        steps = 0

        async def step(self, action: AssistantMessage) -> StepResult:
            Counted.steps += 1
            return await super().step(action)

    before = set(psutil.Process().children())
    engine = ScriptedEngine(canned([said("python", "1"), said("python", "import time\ntime.sleep(60)"), "9"]))
    jobs = [Job(TaskSource(env, "train").task(index), "g", index) for index in range(8)]
    for pause_s in (0.3, 0.3, 1.0, 2.0):  # until the second calls of all, and none of them ended at its deadline
        Counted.steps = 0
        playing = asyncio.create_task(play(jobs, make_env=Counted, engine=engine, renderer=RENDERER, settings=SETTINGS))
        await until(lambda: Counted.steps == 16)
        await asyncio.sleep(pause_s)
        for worker in set(psutil.Process().children()) - before:
            worker.kill()
        played = [each.trajectory for each in await playing]
        if all(t.outcome.failed for t in played):
            break
    assert {(t.outcome, t.reward) for t in played} == {(Outcome.FAILED_SANDBOX, None)}


async def test_a_cancelled_rollout_leaves_nothing(env: Coder) -> None:
    engine = ScriptedEngine(canned([said("shell", "sleep 60 & sleep 60"), "9"]))
    jobs = [Job(TaskSource(env, "train").task(index), "g", index) for index in range(8)]
    playing = asyncio.create_task(play(jobs, make_env=Coder, engine=engine, renderer=RENDERER, settings=SETTINGS))
    await asyncio.sleep(0.5)
    playing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await playing


async def test_an_episode_that_a_limit_cuts_ends_its_session() -> None:
    env = Coder()
    await env.reset(seed=3)
    await ask(env, "python", "1")
    with env._holdings.at_hand():
        session = await env._holdings.for_episode(*_held(env))
    await env.conclude(None)
    with pytest.raises(SessionLost, match="closed"):
        await session.run("1")
    await env.close()


def _held(env: Coder) -> tuple[object, object]:
    """The key of what the episode holds; it is there, so that nothing is opened."""
    (key,) = env._holdings._episode
    return key, None


@pytest.mark.slow
async def test_the_environment_passes_its_check() -> None:
    results = await asyncio.to_thread(check_env, Coder, n_tasks=1)
    assert [result for result in results if not result.passed] == []
