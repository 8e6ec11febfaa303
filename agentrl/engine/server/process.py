"""A vLLM server that agentrl starts: its command line, its process group, its log, its end.

What comes in: a checkpoint and `[engine]`. What goes out: a server behind a Unix socket that only this user can reach
(vLLM's weight calls let whoever reaches them run code), in a process group that ends with this process, also when this
one is killed. vLLM may live in another virtual environment: nothing of agentrl is imported there.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from agentrl.engine.settings import EngineSettings
from agentrl.engine.vllm.process import EAGER, QUIET, new_log, root_cause

GRACE_S = 15.0  # for vLLM to end by itself
KILL_WAIT_S = 10.0
_KEEPER = Path(__file__).with_name("keeper.py")
_LONG_PATH = 70  # characters; a socket's whole path may have some hundred
_NOT_FOR_ANOTHER_PYTHON = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")


@dataclass(slots=True)
class ServerProcess:
    """One server, started. `folder` holds its socket; `log` what it says."""

    keeper: subprocess.Popen[bytes]
    folder: Path
    log: Path
    failed: bool = False  # its log is worth keeping

    @classmethod
    def start(cls, model: str, settings: EngineSettings, *, dtype: str, seed: int, number: int) -> ServerProcess:
        """Start the server; it loads its model for a while yet.

        Raises:
            OSError: the interpreter cannot be started.
        """
        log = new_log()
        short = None if len(tempfile.gettempdir()) < _LONG_PATH else "/tmp"
        folder = Path(tempfile.mkdtemp(prefix="agentrl-vllm-", dir=short))  # this user's alone
        command = _command(model, settings, dtype=dtype, seed=seed, socket=folder / "socket")
        keeper = [sys.executable, "-I", "-S", str(_KEEPER), str(os.getpid()), f"{GRACE_S:g}", *command]
        try:
            with log.open("ab") as out:
                started = subprocess.Popen(
                    keeper,
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=out,
                    env=_environment(settings, number),
                    start_new_session=True,
                )
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            log.unlink(missing_ok=True)
            raise
        return cls(started, folder, log)

    @property
    def socket(self) -> Path:
        return self.folder / "socket"

    @property
    def name(self) -> str:
        """What stands for its address in errors."""
        return f"unix:{self.socket}"

    @property
    def ended(self) -> bool:
        return self.keeper.poll() is not None

    def explain(self) -> str:
        """Why it ended or does not come up, in one line, as far as its log tells."""
        self.failed = True
        cause = root_cause(self.log) or "it said no reason (killed, or out of memory?)"
        return f"{cause} (its log: {self.log})"

    def obituary(self) -> str:
        """How it ended, in one line; "" while it lives."""
        return f"Its process has ended: {self.explain()}" if self.ended else ""

    async def close(self) -> None:
        """End the server and all that it started. May be called twice."""
        self.failed = self.failed or self.ended
        try:
            if not self.ended:
                self.keeper.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    await asyncio.to_thread(self.keeper.wait, GRACE_S + KILL_WAIT_S)
        finally:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.keeper.pid, signal.SIGKILL)
            self.keeper.wait(KILL_WAIT_S)
            shutil.rmtree(self.folder, ignore_errors=True)
            if not self.failed:
                self.log.unlink(missing_ok=True)


def _command(model: str, settings: EngineSettings, *, dtype: str, seed: int, socket: Path) -> list[str]:
    """vLLM's command line, as the embedded engine would configure it."""
    vllm = settings.vllm
    given = {
        "model": model,
        "served-model-name": "policy",
        "uds": str(socket),
        "dtype": dtype,
        "seed": str(seed % 2**32),
        "max-model-len": str(settings.max_context),
        "max-num-seqs": str(settings.max_batch),
        "generation-config": "vllm",  # nothing from the checkpoint changes how we sample
        "logprobs-mode": "processed_logprobs",
    }
    switches = [
        "skip-tokenizer-init",
        "tokens-only",
        "enable-prefix-caching",
        "enable-prompt-tokens-details",
        "disable-uvicorn-access-log",
    ]
    if vllm.enforce_eager:
        switches.append("enforce-eager")
    interpreter = os.path.expanduser(settings.server.python) or sys.executable
    return [
        interpreter,
        "-c",
        _START.format(
            kv_bytes=int(vllm.kv_cache_gib * 2**30),
            batched_tokens=max(8192, settings.max_context),
            gpu_share=vllm.gpu_memory_utilization,
        ),
        *(word for name, value in given.items() for word in (f"--{name}", value)),
        *(f"--{switch}" for switch in switches),
        *settings.server.arguments,
    ]


# Which build of vLLM it is can only be asked over there. On a CPU a prompt computed in parts would rewind its request's
# generator, which torch's CPU generators cannot do.
_START = """\
if __name__ == "__main__":
    import sys
    from vllm.platforms import current_platform
    if current_platform.is_cpu():
        sys.argv[1:1] = ["--kv-cache-memory-bytes", "{kv_bytes}", "--no-enable-chunked-prefill"]
        sys.argv[1:1] = ["--max-num-batched-tokens", "{batched_tokens}"]
    else:
        sys.argv[1:1] = ["--gpu-memory-utilization", "{gpu_share}"]
    from vllm.entrypoints.launchers.api_server.entry import main
    main()
"""


def _environment(settings: EngineSettings, number: int) -> dict[str, str]:
    server = settings.server
    kept = {k: v for k, v in os.environ.items() if not (server.python and k in _NOT_FOR_ANOTHER_PYTHON)}
    added = QUIET | {"VLLM_LOGGING_LEVEL": "INFO"} | (EAGER if settings.vllm.enforce_eager else {})
    forced = {"VLLM_SERVER_DEV_MODE": "1", "PYTHONSAFEPATH": "1"}
    if server.gpus:
        forced["CUDA_VISIBLE_DEVICES"] = server.gpus[number]
    return added | kept | forced
