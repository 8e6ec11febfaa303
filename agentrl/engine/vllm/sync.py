"""One weight sync to vLLM: a checkpoint in shared memory, loaded while requests wait between two tokens.

What comes in: vLLM's `AsyncLLM` and a source of weights. What goes out: the backend samples with the new weights and
names their version on every token. Each step has a deadline, and its failure names the step. Knows nothing of requests,
and does not import vLLM.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentrl.engine.base import WeightSource
from agentrl.errors import EngineFailure

SHARED_MEMORY = Path("/dev/shm")


@dataclass(frozen=True, slots=True)
class WeightSync:
    """Raises `EngineFailure` from every step that fails or takes longer than `deadline_s`."""

    llm: Any  # vLLM's AsyncLLM
    version: int
    deadline_s: float  # of each step
    explain: Callable[[Exception], str]  # what broke, in one line

    async def write(self, source: WeightSource, folder: Path) -> None:
        """Write the checkpoint; vLLM goes on sampling."""
        await self._step("writing the checkpoint", asyncio.to_thread(source.write, folder))

    async def swap(self, folder: Path) -> None:
        """Load the checkpoint between two tokens; running requests keep their keys and values."""
        await self._step("pause_generation", self.llm.pause_generation(mode="keep", clear_cache=False))
        reload = self.llm.collective_rpc("reload_weights", kwargs={"weights_path": str(folder)})
        await self._step("reload_weights", reload)
        await self._step("update_weight_version", self.llm.update_weight_version(str(self.version)))
        await self._step("resume_generation", self.llm.resume_generation())

    async def _step(self, name: str, step: Awaitable[Any]) -> None:
        try:
            async with asyncio.timeout(self.deadline_s):
                await step
        except TimeoutError as error:
            raise EngineFailure(
                f"the sync of version {self.version} to vLLM hangs: {name} did not end within "
                f"engine.vllm.sync_deadline_s = {self.deadline_s:g} s"
            ) from error
        except Exception as error:
            raise EngineFailure(
                f"the sync of version {self.version} to vLLM failed at {name}: {self.explain(error)}"
            ) from error


def new_folder(checkpoint: Path) -> Path:
    """An empty folder in shared memory, if twice the size of `checkpoint` fits there, else where temporary files go."""
    size = sum(path.stat().st_size for path in checkpoint.glob("*.safetensors"))
    shared = SHARED_MEMORY.is_dir() and shutil.disk_usage(SHARED_MEMORY).free > 2.5 * size
    return Path(tempfile.mkdtemp(prefix="agentrl-weights-", dir=SHARED_MEMORY if shared else None))
