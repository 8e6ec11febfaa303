"""The keeper of a server's processes, with processes that stand in for vLLM's: real ones, that start real children."""

from __future__ import annotations

import asyncio
import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("psutil", reason="psutil is not installed; it comes with vLLM")
pytest.importorskip("aiohttp", reason="aiohttp is not installed: pip install 'agentrl[server]'")

import psutil

from agentrl.engine.server import VllmServerEngine, process
from agentrl.engine.server.launch import vocabulary
from agentrl.engine.server.process import ServerProcess
from agentrl.engine.settings import EngineSettings, ServerSettings, VllmSettings
from agentrl.errors import EngineFailure
from tests.engine.server_world import model_folder, open_sockets
from tests.processes import still_running

KEEPER = Path(process.__file__).with_name("keeper.py")
FAMILY = """
import signal, subprocess, sys, time
if sys.argv[1] == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
subprocess.Popen([sys.executable, "-c", deaf])
print("up", flush=True)
time.sleep(600)
"""
PARENT = """
import os, subprocess, sys, time
keeper = subprocess.Popen(
    [sys.executable, "-I", "-S", sys.argv[1], str(os.getpid()), "0.5", sys.executable, "-c", sys.argv[2], sys.argv[3]],
    start_new_session=True,
)
keeper.wait()
"""


@pytest.mark.parametrize("manner", ["willing", "stubborn"])
@pytest.mark.parametrize("end", ["parent killed", "keeper asked", "server killed"])
def test_nothing_outlives_its_parent_its_keeper_or_its_server(manner: str, end: str) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(KEEPER), FAMILY, manner], stdout=subprocess.PIPE, start_new_session=True
    )
    assert parent.stdout is not None
    assert parent.stdout.readline() == b"up\n"
    family = psutil.Process(parent.pid).children(recursive=True)
    keeper, server = family[0], family[1]
    assert len(family) == 3
    try:
        keeper.send_signal(signal.SIGINT)  # what the terminal's Ctrl-C would do, could it reach them
        {"parent killed": parent.kill, "keeper asked": keeper.terminate, "server killed": server.kill}[end]()
        assert still_running(family) == []
    finally:
        for one in family:
            if one.is_running():
                one.kill()
        parent.kill()
        parent.wait()
        parent.stdout.close()


def settings(python: str, **changed: float) -> EngineSettings:
    return EngineSettings(
        kind="vllm-server",
        vllm=VllmSettings(start_deadline_s=changed.get("start_deadline_s", 60.0)),
        server=ServerSettings(python=python),
    )


def interpreter(tmp_path: Path, does: str) -> str:
    """A program that stands in for a Python with vLLM."""
    path = tmp_path / "python"
    path.write_text(f"#!/bin/sh\n{does}\n")
    path.chmod(0o755)
    return str(path)


async def failure(tmp_path: Path, chosen: EngineSettings) -> str:
    before, sockets = psutil.Process().children(recursive=True), open_sockets()
    engine = VllmServerEngine(model_folder(tmp_path), chosen)
    with pytest.raises(EngineFailure) as told:
        await engine.start()
    assert psutil.Process().children(recursive=True) == before
    assert open_sockets() == sockets
    os.unlink(str(told.value).partition("its log: ")[2].rstrip(")"))  # it is named and kept
    return str(told.value)


async def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    python = interpreter(tmp_path, "echo \"ModuleNotFoundError: No module named 'vllm'\" >&2; exit 1")
    told = await failure(tmp_path, settings(python))
    assert "did not start: ModuleNotFoundError: No module named 'vllm' (its log: " in told


async def test_an_interpreter_that_is_not_there_says_so(tmp_path: Path) -> None:
    told = await failure(tmp_path, settings(str(tmp_path / "nothing")))
    assert "No such file or directory" in told


async def test_a_server_that_does_not_come_up_has_a_deadline(tmp_path: Path) -> None:
    began = time.monotonic()
    told = await failure(tmp_path, settings(interpreter(tmp_path, "exec sleep 600"), start_deadline_s=0.5))
    assert "did not start within engine.vllm.start_deadline_s = 0.5 s (unix:/" in told
    assert time.monotonic() - began < 120  # it would sleep for ten minutes


async def test_a_cancelled_start_leaves_no_process(tmp_path: Path) -> None:
    before = psutil.Process().children(recursive=True)
    engine = VllmServerEngine(model_folder(tmp_path), settings(interpreter(tmp_path, "exec sleep 600")))
    starting = asyncio.create_task(engine.start())
    await asyncio.sleep(0.3)
    assert len(psutil.Process().children(recursive=True)) > len(before)
    log = engine._processes[0].log
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert psutil.Process().children(recursive=True) == before
    assert not log.exists()


async def test_what_a_server_is_started_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/ours")
    python = interpreter(tmp_path, 'for word in "$@"; do echo "<$word>"; done; env; exit 3')
    server = ServerSettings(python=python, count=2, gpus=("4,5", "6,7"), arguments=("--tensor-parallel-size", "2"))
    started = ServerProcess.start(
        "some/model", replace(settings(python), server=server), dtype="float32", seed=7, number=1
    )
    await asyncio.to_thread(started.keeper.wait, 60)
    said = started.log.read_text()
    assert "CUDA_VISIBLE_DEVICES=6,7\n" in said
    assert "VLLM_SERVER_DEV_MODE=1\n" in said
    assert "PYTHONPATH" not in said, "another environment has its own"
    words = [line[1:-1] for line in said.splitlines() if line.startswith("<--") or line.endswith(">")]
    for name, value in {"--model": "some/model", "--uds": str(started.socket), "--seed": "7"}.items():
        assert words[words.index(name) + 1] == value
    assert words[-2:] == ["--tensor-parallel-size", "2"], "the user's come last and so have the last word"
    assert started.folder.stat().st_mode & 0o077 == 0, "only this user may reach the socket"
    await started.close()
    assert not started.folder.exists()
    started.log.unlink()


def test_the_vocabulary_is_read_from_a_folder_or_from_the_hubs_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    assert vocabulary(str(model_folder(tmp_path))) == 300
    snapshot = tmp_path / "cache" / "models--owner--model" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text('{"text_config": {"vocab_size": 77}}')
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text("abc")
    assert vocabulary("owner/model") == 77
    assert vocabulary("owner/other") == math.inf
    assert vocabulary("/no/such/folder/here") == math.inf
