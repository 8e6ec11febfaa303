"""The processes behind a verifier: whose they are, how they end, and that all doors lead to the same verdicts."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from agentrl.errors import ConfigError, MissingDependencyError, VerifierFailure
from agentrl.verify import GoldError, Judgement, Verdict, Verifier
from agentrl.verify.service import FAIR_SHARE

from ..processes import still_running
from .conftest import LIMIT_S, needs_math_verify

ROOT = Path(__file__).resolve().parents[2]
GOLD = "2\\pi"


def hang(base: int) -> str:
    """An answer that keeps a worker for hours."""
    return f"\\boxed{{{base}^{{(4+5)^{{(4+5)^{{9}}}}}}}}"


HANG = hang(9)
CASES = [
    ("24", "#### 24", Verdict.CORRECT),
    ("24", "#### 25", Verdict.WRONG),
    ("24", "no idea", Verdict.UNPARSABLE),
    ("x^2+1", "\\boxed{1+x^2}", Verdict.CORRECT),
    ("\\{1,2\\}", "\\boxed{\\{1,3\\}}", Verdict.WRONG),
    ("x^2", "\\boxed{x^}", Verdict.UNPARSABLE),
    (GOLD, HANG, Verdict.TIMEOUT),
]
PAIRS = [(gold, response) for gold, response, _ in CASES]
WANTED = [verdict for *_, verdict in CASES]


def verdicts(found: list[Judgement]) -> list[Verdict]:
    return [judged.verdict for judged in found]


def ask_all(verifier: Verifier) -> list[Verdict]:
    return verdicts([verifier.verify_sync(*pair) for pair in PAIRS])


def in_child(verifier: Verifier, answers: multiprocessing.Queue[list[Verdict] | list[int]]) -> None:
    answers.put(ask_all(verifier))
    answers.put([process.pid for process in family(verifier)])


@needs_math_verify
async def test_asyncio(quick: Verifier) -> None:
    assert verdicts([await quick.verify(*pair) for pair in PAIRS]) == WANTED
    assert verdicts(await asyncio.gather(*(quick.verify(*pair) for pair in PAIRS))) == WANTED


@needs_math_verify
def test_threads_and_two_event_loops_at_once() -> None:
    found: dict[str, list[Verdict]] = {}

    async def ask_async() -> list[Verdict]:
        return verdicts(await asyncio.gather(*(verifier.verify(*pair) for pair in PAIRS)))

    with Verifier(limit_s=LIMIT_S) as verifier:
        ways = {
            **{f"thread {n}": lambda n=n: found.update({f"thread {n}": ask_all(verifier)}) for n in range(4)},
            **{f"loop {n}": lambda n=n: found.update({f"loop {n}": asyncio.run(ask_async())}) for n in range(2)},
        }
        threads = [threading.Thread(target=way) for way in ways.values()]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert found == dict.fromkeys(ways, WANTED)


@needs_math_verify
@pytest.mark.parametrize("method", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_child_processes(method: str, warm: Verifier) -> None:
    """A forked child inherits a verifier that runs, a spawned one gets a pickled copy; each starts its own workers."""
    context = multiprocessing.get_context(method)
    answers: multiprocessing.Queue[list[Verdict] | list[int]] = context.Queue()
    with Verifier(limit_s=LIMIT_S) as verifier:
        verifier.ready_sync()
        child = context.Process(target=in_child, args=(verifier, answers))
        child.start()
        assert answers.get(timeout=200) == WANTED
        processes = {pid for pid in answers.get(timeout=200) if isinstance(pid, int)}
        child.join()
        assert processes.isdisjoint(process.pid for process in family(verifier))
        assert ask_all(verifier) == WANTED  # the parent's workers did not notice
    assert child.exitcode == 0
    assert still_running(psutil.Process(pid) for pid in processes if psutil.pid_exists(pid)) == []


@needs_math_verify
def test_a_forked_child_that_closes_or_exits_leaves_the_parents_workers_alone() -> None:
    with Verifier(limit_s=5) as verifier:
        verifier.ready_sync()
        pids = [worker.pid for worker in family(verifier)[1:]]
        child = os.fork()
        if child == 0:
            try:
                verifier.close()
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        assert verifier.verify_sync("x+y", "\\boxed{y+x}").correct
        assert verifier.worker_pids() == pids


@needs_math_verify
async def test_batch_keeps_order_and_puts_errors_in_their_places(quick: Verifier) -> None:
    pairs = [*PAIRS, ("", "24"), ("\\frac{1}{", "x"), *PAIRS]
    for found in (await quick.verify_batch(pairs), await asyncio.to_thread(quick.verify_batch_sync, pairs)):
        kinds = [judged.verdict if isinstance(judged, Judgement) else type(judged) for judged in found]
        assert kinds == [*WANTED, GoldError, GoldError, *WANTED]


@needs_math_verify
@pytest.mark.slow
async def test_a_batch_larger_than_the_queue_waits_for_room() -> None:
    pairs = [("x+1", f"\\boxed{{1+x+{n}}}") for n in range(60)]
    async with Verifier(limit_s=10, max_waiting=2) as verifier:
        found, again, lone = await asyncio.gather(
            verifier.verify_batch(pairs),
            asyncio.to_thread(verifier.verify_batch_sync, pairs),
            asyncio.gather(*(verifier.verify(*pair) for pair in pairs)),
        )
    wanted = [Verdict.CORRECT, *[Verdict.WRONG] * 59]
    for results in (found, again, lone):
        assert [judged.verdict for judged in results if isinstance(judged, Judgement)] == wanted


@needs_math_verify
@pytest.mark.slow
async def test_callers_that_give_up_waiting_for_room_do_not_block_others() -> None:
    async with Verifier(limit_s=0.5, workers=1, max_waiting=1) as verifier:
        await verifier.ready()
        tasks = [asyncio.create_task(verifier.verify(GOLD, hang(n))) for n in range(3, 9)]
        await asyncio.sleep(0.1)
        for task in tasks[1:]:
            task.cancel()
        found = await verifier.verify("x+1", "\\boxed{1+x}")
        await asyncio.wait(tasks)
    assert found.correct
    assert [task.cancelled() for task in tasks] == [False] + [True] * 5


@needs_math_verify
async def test_equal_checks_share_one_job_and_a_cancelled_one_does_not_take_it_away() -> None:
    async with Verifier(limit_s=10, workers=1) as verifier:
        tasks = [asyncio.create_task(verifier.verify("x+1", "\\boxed{1+x}")) for _ in range(5)]
        await asyncio.sleep(0)
        tasks[0].cancel()
        found = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(found[0], asyncio.CancelledError)
    assert all(isinstance(judged, Judgement) and judged.correct for judged in found[1:])


@needs_math_verify
@pytest.mark.slow
async def test_what_a_worker_found_is_remembered_within_bounds() -> None:
    async with Verifier(limit_s=10, cache_size=2) as verifier:
        first = await verifier.verify("x+1", "\\boxed{1+x}")
        again = await verifier.verify("x+1", "#### 1+x")
        assert (first.by, again.by, again.verdict) == ("math-verify", "cache", first.verdict)
        for n in range(3):
            await verifier.verify("x+1", f"\\boxed{{{n}+x^3}}")
        assert len(verifier._cache) == 2
        assert (await verifier.verify("x+1", "\\boxed{1+x}")).by == "math-verify"


@needs_math_verify
async def test_a_hang_is_remembered(quick: Verifier, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentrl.verify.service.SURE_SHARE", FAIR_SHARE)  # on a busy machine none is sure otherwise
    assert (await quick.verify(GOLD, hang(8))).verdict is Verdict.TIMEOUT
    again = await quick.verify(GOLD, hang(8))
    assert (again.verdict, again.by) == (Verdict.TIMEOUT, "cache")


@needs_math_verify
async def test_a_hang_of_which_nobody_can_be_sure_is_not_remembered(
    quick: Verifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agentrl.verify.service.SURE_SHARE", 100.0)
    for _ in range(2):
        found = await quick.verify("2\\pi+1", "\\boxed{7^{(3+4)^{(3+4)^{7}}}}")
        assert (found.verdict, found.by) == (Verdict.TIMEOUT, "math-verify")


@needs_math_verify
async def test_close_leaves_no_process_and_fails_what_waits() -> None:
    verifier = Verifier(limit_s=30)
    await verifier.ready()
    processes = family(verifier)
    waiting = [asyncio.create_task(verifier.verify(GOLD, hang(n))) for n in range(3, 8)]
    await asyncio.sleep(0.2)
    await verifier.aclose()
    for found in await asyncio.gather(*waiting, return_exceptions=True):
        assert isinstance(found, VerifierFailure)
        assert "closed" in str(found)
    assert still_running(processes) == []
    await verifier.aclose()  # again, without harm
    for pair in PAIRS[:1] + PAIRS[3:4]:
        with pytest.raises(VerifierFailure, match="is closed"):
            await verifier.verify(*pair)


@needs_math_verify
def test_closing_while_math_verify_loads_leaves_no_process() -> None:
    verifier = Verifier()
    service = verifier._running()
    future, _ = service.submit("x", "x")
    assert future is not None
    while (server := service._crew._process) is None:
        time.sleep(0.01)
    time.sleep(0.05)
    verifier.close()
    assert isinstance(future.exception(), VerifierFailure)
    assert server.returncode is not None


@needs_math_verify
@pytest.mark.slow
def test_a_forgotten_verifier_takes_its_processes_along() -> None:
    verifier = Verifier()
    verifier.ready_sync()
    processes = family(verifier)
    del verifier
    gc.collect()
    assert still_running(processes) == []


def test_the_rules_alone_start_no_process_and_no_thread() -> None:
    with Verifier() as verifier:
        assert verifier.verify_sync("24", "#### 24").correct
        assert verifier._service is None


@needs_math_verify
@pytest.mark.parametrize("busy", [pytest.param(False, marks=pytest.mark.slow), True])
def test_when_the_parent_is_killed_everything_ends(busy: bool) -> None:
    script = f"""
import sys, time
from agentrl.verify import Verifier
verifier = Verifier(limit_s=60)
verifier.ready_sync()
if {busy}:
    for base in (7, 9):
        verifier._running().submit("2", f"{{base}}^{{{{9^{{{{9^{{{{9}}}}}}}}}}}}")
    time.sleep(0.5)
print("ready", flush=True)
time.sleep(600)
"""
    parent = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT)}, text=True
    )
    assert parent.stdout is not None
    with parent.stdout:
        assert parent.stdout.readline() == "ready\n"
        family = psutil.Process(parent.pid).children(recursive=True)
        parent.kill()
        parent.wait()
    assert len(family) == 3
    assert still_running(family) == []


@needs_math_verify
def test_ctrl_c_of_the_terminal_does_not_reach_the_workers(warm: Verifier) -> None:
    for pid in warm.worker_pids():
        os.kill(pid, signal.SIGINT)
    assert warm.verify_sync("x+y+1", "\\boxed{y+x+1}").correct


@needs_math_verify
async def test_killed_workers_are_replaced_and_their_work_is_done_anew(quick: Verifier) -> None:
    tasks = [asyncio.create_task(quick.verify("x+1", f"\\boxed{{1+x+{n}-{n}}}")) for n in range(30)]
    for _ in range(3):
        await asyncio.sleep(0.02)
        for pid in quick.worker_pids():
            with_kill(pid)
    found = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(judged, VerifierFailure) or judged.correct for judged in found)
    assert sum(isinstance(judged, Judgement) for judged in found) >= 20
    assert (await quick.verify("x+2", "\\boxed{2+x}")).correct


@needs_math_verify
async def test_a_killed_fork_server_is_started_anew(quick: Verifier) -> None:
    await quick.ready()
    server = psutil.Process(quick.worker_pids()[0]).ppid()
    workers = [psutil.Process(pid) for pid in quick.worker_pids()]
    hang = asyncio.create_task(quick.verify(GOLD, HANG))
    await asyncio.sleep(0.1)
    with_kill(server)
    assert (await quick.verify("x+1", "\\boxed{1+x}")).correct
    assert (await hang).verdict is Verdict.TIMEOUT
    assert still_running(workers) == []


@needs_math_verify
async def test_a_stopped_worker_is_the_machines_failure_and_no_verdict() -> None:
    async with Verifier(limit_s=1.0, workers=1) as verifier:
        await verifier.ready()
        (pid,) = verifier.worker_pids()
        os.kill(pid, signal.SIGSTOP)
        with pytest.raises(VerifierFailure, match="the machine is too busy"):
            await verifier.verify("x+1", "\\boxed{1+x}")
        assert (await verifier.verify("x+1", "\\boxed{1+x}")).correct


@needs_math_verify
async def test_a_check_has_its_time_after_everything_was_held_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a virtual machine is: for longer than the limit and all of its extensions."""
    async with Verifier(limit_s=1.0, workers=1) as verifier:
        await verifier.ready()
        (pid,) = verifier.worker_pids()
        service, held = verifier._running(), []
        look = service._look_at_clock

        def held_up() -> None:
            if service._running and not held:
                held.append(True)
                time.sleep(5)
                os.kill(pid, signal.SIGCONT)
            look()

        monkeypatch.setattr(service, "_look_at_clock", held_up)
        os.kill(pid, signal.SIGSTOP)
        assert (await verifier.verify("x+1", "\\boxed{1+x}")).correct
        assert held


@needs_math_verify
@pytest.mark.slow
async def test_a_worker_that_dies_again_is_a_failure_and_no_verdict() -> None:
    async with Verifier(limit_s=30, workers=1) as verifier:
        await verifier.ready()
        task = asyncio.create_task(verifier.verify(GOLD, HANG))
        for _ in range(2):
            await asyncio.sleep(0.3)
            with_kill(verifier.worker_pids()[0])
        with pytest.raises(VerifierFailure, match="died 2 times"):
            await task


STAND_IN = """
import os, subprocess, sys, time

class LatexExtractionConfig:
    def __init__(self, **settings): pass

def parse(text, config, **settings):
    print("noise", flush=True)
    if "memory" in text:
        return [bytearray(1 << 40)]
    if "deep" in text:
        parse(text, config)
    if "abort" in text:
        os.abort()
    if "write" in text:
        open(os.environ["STAND_IN_FILE"], "w").write("x")
    if "hang" in text:
        while True: pass
    if "start" in text:
        for own_session in (False, True):
            subprocess.Popen(["sleep", "600"], start_new_session=own_session)
        while True: pass
    return [1]

def verify(gold, answer, **settings):
    return True
"""


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Instead of math-verify, a checker that does what no answer is known to bring math-verify to."""
    (tmp_path / "math_verify.py").write_text(STAND_IN)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *(entry for entry in sys.path if "site-packages" not in entry)])
    monkeypatch.setenv("STAND_IN_FILE", str(tmp_path / "written"))
    return tmp_path


def test_processes_that_an_answer_started_die_with_its_worker(stand_in: Path) -> None:
    with Verifier(limit_s=5, workers=1) as verifier:
        verifier.ready_sync()
        (worker,) = (psutil.Process(pid) for pid in verifier.worker_pids())
        asked = threading.Thread(target=verifier.verify_sync, args=("x", "\\boxed{start+1}"))
        asked.start()
        while asked.is_alive() and names(started := worker.children()) != ["sleep", "sleep"]:
            time.sleep(0.02)
        assert names(started) == ["sleep", "sleep"]
        asked.join()
        assert still_running(started) == []
        assert verifier.verify_sync("x", "\\boxed{y+1}").correct


def names(processes: list[psutil.Process]) -> list[str]:
    """Of those that there are yet; of one that was forked and not begun, what its parent is called."""
    found = []
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            found.append(process.name())
    return found


def test_an_answer_that_takes_too_much_memory_hits_a_limit(stand_in: Path) -> None:
    with Verifier(memory_mb=256) as verifier:
        found = verifier.verify_sync("x", "\\boxed{memory+1}")
        assert (found.verdict, found.reason) == (Verdict.TIMEOUT, "over the memory limit of 256 MiB")


@pytest.mark.parametrize(
    ("gold", "why"),
    [("memory+1", "too much memory"), ("deep+1", "nested too deeply"), ("hang+1", "it was not read within 2 s")],
)
def test_a_gold_answer_that_takes_too_much_is_no_verdict_on_the_answer(stand_in: Path, gold: str, why: str) -> None:
    with Verifier(limit_s=LIMIT_S, memory_mb=256) as verifier, pytest.raises(GoldError, match=why):
        verifier.verify_sync(gold, "\\boxed{y+1}")


def test_an_answer_on_which_the_checker_crashes_is_a_failure_and_no_verdict(stand_in: Path) -> None:
    with Verifier() as verifier:
        with pytest.raises(VerifierFailure, match="died 2 times"):
            verifier.verify_sync("x", "\\boxed{abort+1}")
        assert verifier.verify_sync("x", "\\boxed{y+1}").correct


def test_a_worker_writes_no_file(stand_in: Path) -> None:
    with Verifier() as verifier:
        verifier.ready_sync()
        with contextlib.suppress(VerifierFailure):
            verifier.verify_sync("x", "\\boxed{write+1}")
    assert not (stand_in / "written").exists() or (stand_in / "written").read_text() == ""


@needs_math_verify
@pytest.mark.slow
def test_many_answers_and_replaced_workers_leave_no_descriptor_behind() -> None:
    with Verifier(limit_s=0.2, cache_size=0) as verifier:
        verifier.ready_sync()
        before = psutil.Process().num_fds()
        for _ in range(6):
            verifier.verify_sync(GOLD, HANG)
        verifier.verify_sync("x+1", "\\boxed{1+x}")
        assert psutil.Process().num_fds() <= before + 2
        server = psutil.Process(psutil.Process(verifier.worker_pids()[0]).ppid())
        deadline = time.monotonic() + 10
        while len(server.children()) > 2 and time.monotonic() < deadline:  # the last one killed is being waited for
            time.sleep(0.02)
        assert len(server.children()) == 2
        assert server.num_fds() <= 10


def test_without_math_verify_the_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if "site-packages" not in entry])
    with Verifier() as verifier:
        assert verifier.verify_sync("24", "#### 24").correct
        for _ in range(2):
            with pytest.raises(MissingDependencyError, match=r"agentrl\[math\]"):
                verifier.verify_sync("x+1", "\\boxed{1+x}")
    with Verifier(symbolic=False) as verifier:
        found = verifier.verify_sync("x+1", "\\boxed{1+x}")
        assert (found.verdict, "symbolic=False" in found.reason) == (Verdict.UNPARSABLE, True)


@pytest.mark.parametrize("setting", ["limit_s", "workers", "memory_mb", "max_waiting"])
def test_a_senseless_setting_is_named(setting: str) -> None:
    with pytest.raises(ConfigError, match=f"{setting} = 0"):
        Verifier(**{setting: 0})


def test_errors_and_verifiers_can_be_pickled() -> None:
    error = pickle.loads(pickle.dumps(GoldError("x^", "why")))
    assert (error.gold, error.why) == ("x^", "why")
    with pickle.loads(pickle.dumps(Verifier(symbolic=False))) as copy:
        assert copy.verify_sync("24", "24").correct


def family(verifier: Verifier) -> list[psutil.Process]:
    """The fork server and the workers, once both are there."""
    deadline = time.monotonic() + 60
    while len(verifier.worker_pids()) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    workers = [psutil.Process(pid) for pid in verifier.worker_pids()]
    assert len(workers) == 2
    assert {worker.ppid() for worker in workers} != {os.getpid()}
    return [psutil.Process(workers[0].ppid()), *workers]


def with_kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
