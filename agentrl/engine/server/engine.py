"""The server engine: samples with one or several vLLM servers over HTTP.

What comes in: token ids. What goes out: sampled ids with their log-probabilities and the version of the weights that
sampled each, as the server reports them and as checked here. Servers are started by agentrl, from any interpreter that
has vLLM, or run already. New weights go over as a checkpoint that the servers read. Knows no messages or environments.

An episode stays with one server, whose prefix cache holds its earlier turns. A request that a server fails is tried
again on another one, from its beginning: nothing of an answer that was not received whole is kept.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import math
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from agentrl.engine.base import Request, WeightSource
from agentrl.engine.http import Client, HttpError
from agentrl.engine.server import launch
from agentrl.engine.server.answer import BadAnswer, generate_body, read_answer
from agentrl.engine.server.fleet import Fleet
from agentrl.engine.server.process import ServerProcess
from agentrl.engine.server.push import push
from agentrl.engine.server.server import Server
from agentrl.engine.settings import EngineSettings
from agentrl.engine.vllm.sync import new_folder
from agentrl.errors import EngineFailure
from agentrl.trajectory import Completion

ABORT_DEADLINE_S = 10.0  # for an aborted request to come back with what it has
ABORT_POLL_S = 0.05


@dataclass(eq=False, slots=True)
class _Running:
    """One `complete` that has not returned."""

    request_id: str
    server: Server | None = None  # that samples now
    call: asyncio.Task[Completion] | None = None
    aborted: bool = False


class VllmServerEngine:
    """Samples with vLLM servers. See `agentrl.engine.base.Engine` for the contract.

    Args:
        model: a Hugging Face checkpoint, or a hub name.
        settings: `[engine]`; `[engine.server]` holds what only this engine honours, and servers that it starts honour
            `[engine.vllm]`.
        dtype: what started servers compute in.
        seed: of started servers; each request brings its own for its draws.
    """

    def __init__(self, model: str | Path, settings: EngineSettings, *, dtype: str = "float32", seed: int = 0) -> None:
        self._model, self._settings, self._dtype, self._seed = str(model), settings, dtype, seed
        self._vocabulary = launch.vocabulary(self._model)
        self._version = 0
        self._processes: list[ServerProcess] = []
        self._fleet = Fleet((), settings.server)
        self._broken: str | None = "the server engine was not started: await start() first"
        self._running: dict[str, _Running] = {}  # by episode id
        self._run = uuid.uuid4().hex[:8]  # several clients may share a server
        self._numbers = itertools.count()
        self._no_sync = asyncio.Event()  # cleared while weights change: no request enters then
        self._no_sync.set()
        self._sync_lock = asyncio.Lock()
        self._requests = self._retries = self._prompt_tokens = self._cached_tokens = 0
        self._tells_cached = False

    @property
    def version(self) -> int:
        return self._version

    @property
    def max_context(self) -> int:
        return self._settings.max_context

    async def start(self) -> None:
        """Start the servers, or find those that run, and see that they have the policy's weights.

        Raises:
            EngineFailure: a server did not come up within `engine.vllm.start_deadline_s`, is configured in a way that
                would falsify what it says, or did not take the weights.
        """
        try:
            self._fleet = Fleet(await self._servers(), self._settings.server)
            self._broken = None
            if self._settings.server.urls:
                await self._give_policy()
            self._fleet.watch()
        except BaseException:
            await self.close()
            raise

    async def _servers(self) -> list[Server]:
        server, deadline_s = self._settings.server, self._settings.vllm.start_deadline_s
        if server.urls:
            key = os.environ.get(server.api_key_env, "") if server.api_key_env else ""
            found = [Server(Client(url, api_key=key)) for url in server.urls]
            self._fleet = Fleet(found, server)  # so that a failure closes their connections
            for one in found:
                await launch.examine(one, self._settings, deadline_s=deadline_s)
            return found
        self._processes = [
            ServerProcess.start(self._model, self._settings, dtype=self._dtype, seed=self._seed, number=number)
            for number in range(server.count)
        ]
        found = [Server(Client(process.name, socket=process.socket)) for process in self._processes]
        self._fleet = Fleet(found, server)
        await launch.await_ready(found, self._processes, self._settings)
        return found

    async def _give_policy(self) -> None:
        """Servers that run already may have any weights: give them the policy's, as version 0."""
        if Path(self._model).is_dir():
            await self._push(_Checkpoint(Path(self._model)), 0)
        else:
            await self._give(self._model, 0)  # a hub name: they look it up themselves
        if reasons := self._fleet.refusals(0):
            raise EngineFailure(f"a server of engine.server.urls did not take the policy's weights: {reasons}")

    async def complete(self, request: Request) -> Completion:
        """Sample one completion; a failed try is repeated on another server, `engine.server.retries` times.

        Raises:
            EngineFailure: every try failed (each is told, with the server's address and what came back), the request
                was refused, or the prompt does not fit.
        """
        max_tokens = self._room(request)
        running = _Running(f"{self._run}/{request.episode_id}/{next(self._numbers)}")
        self._running[request.episode_id] = running
        self._requests += 1
        try:
            return await self._with_retries(request, running, max_tokens)
        finally:
            if self._running.get(request.episode_id) is running:
                del self._running[request.episode_id]

    async def _with_retries(self, request: Request, running: _Running, max_tokens: int) -> Completion:
        settings = self._settings.server
        told: list[str] = []
        failed: Server | None = None
        for attempt in range(settings.retries + 1):
            if attempt:
                self._retries += 1
                await asyncio.sleep(settings.backoff_s * 2 ** (attempt - 1))
            await self._no_sync.wait()
            if running.aborted:
                return _nothing()
            if self._broken is not None:
                raise EngineFailure(self._broken)
            server = self._fleet.pick(request.episode_id, self._version, failed=failed)
            if server is None:
                told.append(f"no server samples: {self._fleet.refusals(self._version)}")
                continue
            try:
                return await self._sample(server, request, running, max_tokens)
            except HttpError as error:
                if self._broken is not None:
                    raise EngineFailure(self._broken) from error
                told.append(str(error))
                if not error.transient:
                    raise EngineFailure(f"a server refused a request: {error}") from error
                failed = server
        raise EngineFailure(f"no server could sample, tried {len(told)} times: {'; '.join(dict.fromkeys(told))}")

    async def _sample(self, server: Server, request: Request, running: _Running, max_tokens: int) -> Completion:
        running.server = server
        running.call = asyncio.create_task(self._ask(server, request, running.request_id, max_tokens))
        try:
            return await running.call
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if running.aborted and not (task is not None and task.cancelling()):
                return _nothing()  # the server did not give back what it had
            raise
        except HttpError:
            if running.aborted:
                return _nothing()
            raise
        finally:
            running.call.cancel()
            running.server = running.call = None

    async def _ask(self, server: Server, request: Request, request_id: str, max_tokens: int) -> Completion:
        """One try on one server; a server that fails it is drained until its health is known again."""
        body = generate_body(request, request_id=request_id, max_tokens=max_tokens, version=self._version)
        known = len(server.versions) - 1  # from this one on
        try:
            answer = await server.generate(body, self._settings.server.request_deadline_s)
            read = read_answer(answer, request.sampling, max_tokens=max_tokens, versions=server.versions[known:])
        except BadAnswer as error:
            asked = f"POST {server.name}/inference/v1/generate"
            server.drain(f"{asked} gave an answer that cannot be used: {error}")
            raise HttpError(f"{asked} gave an answer that cannot be used: {error}", transient=True) from error
        except HttpError as error:
            if error.transient and error.status != 429:  # too many requests: it is well
                server.drain(str(error))
            raise
        self._prompt_tokens += read.prompt_tokens
        self._tells_cached |= read.cached_tokens is not None
        self._cached_tokens += read.cached_tokens or 0
        return read.completion

    def _room(self, request: Request) -> int:
        """How many tokens may be sampled."""
        prompt = request.prompt_ids
        room = self.max_context - len(prompt)
        if room < 1 or not len(prompt):
            raise EngineFailure(
                f"a prompt of {len(prompt)} tokens leaves no room in engine.max_context = {self.max_context}: raise "
                "it, or lower rollout.max_tokens_per_episode"
                if room < 1
                else "a prompt has no tokens: vLLM wants one at least"
            )
        if not 0 <= prompt.min() <= prompt.max() < self._vocabulary:
            raise EngineFailure(f"a prompt holds a token id outside the model's vocabulary of {self._vocabulary:g}")
        return min(request.sampling.max_tokens, room)

    async def abort(self, episode_id: str) -> None:
        """Stop the episode's request; where its server does not give back what it sampled, it returns no tokens."""
        running = self._running.get(episode_id)
        if running is None:
            return
        running.aborted = True
        call, server = running.call, running.server
        if call is None or server is None:
            return  # it waits for a server: it sees the mark
        with contextlib.suppress(TimeoutError, HttpError):
            async with asyncio.timeout(ABORT_DEADLINE_S):
                while not call.done():  # asked too early, a server does not know the request yet
                    await server.abort(running.request_id, ABORT_DEADLINE_S)
                    await asyncio.wait({call}, timeout=ABORT_POLL_S)
        call.cancel()

    def release(self, episode_id: str) -> None:
        self._fleet.forget(episode_id)

    async def update_weights(self, source: WeightSource, version: int) -> None:
        """Sample with `source`'s weights from now on; requests that are running go on with them.

        A server that does not take them gets no requests: until a later push, where its weights were not touched, and
        never again where they may have been.

        Raises:
            EngineFailure: the checkpoint could not be written, or no server took it.
        """
        if self._broken is not None:
            raise EngineFailure(self._broken)
        await self._push(source, version)

    async def _push(self, source: WeightSource, version: int) -> None:
        """Write a checkpoint for the servers, and give it to them."""
        async with self._sync_lock:
            folder = self._checkpoint_folder()
            try:
                await _written(source, folder, version, self._settings.vllm.sync_deadline_s)
                await self._give(str(folder), version)
            finally:
                await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)

    async def _give(self, checkpoint: str, version: int) -> None:
        """Give a checkpoint to all servers that are well; no request enters meanwhile."""
        fit = [server for server in self._fleet.servers if not (server.lost or server.drained)]
        deadline_s = self._settings.vllm.sync_deadline_s
        self._no_sync.clear()
        try:
            refused = await asyncio.gather(*(push(one, checkpoint, version, deadline_s=deadline_s) for one in fit))
            if None not in refused:
                reasons = "; ".join(filter(None, refused)) or self._fleet.refusals(version)
                raise EngineFailure(f"the sync of version {version} to the vLLM servers failed: {reasons}")
            self._version = version
        finally:
            self._no_sync.set()

    def _checkpoint_folder(self) -> Path:
        shared = self._settings.server.weights_folder
        if not shared:
            return new_folder(Path(self._model))
        folder = Path(tempfile.mkdtemp(prefix="agentrl-weights-", dir=Path(shared).expanduser()))
        folder.chmod(0o755)  # a server may run as somebody else
        return folder

    def metrics(self) -> Mapping[str, float]:
        """Counters since the start and gauges of the servers; NaN where no server tells.

        `prefix_hit_rate`: share of prompt tokens found in a prefix cache. `kv_usage`: of the fullest server. `running`
        and `waiting`: requests in the servers. `servers`: how many may sample now.
        """
        gauges = [server.gauges for server in self._fleet.servers if server.refusal(self._version) is None]
        rate = self._cached_tokens / self._prompt_tokens if self._tells_cached else math.nan
        return {
            "prefix_hit_rate": rate,
            "kv_usage": _joined(max, gauges, "kv_usage"),
            "running": _joined(sum, gauges, "running"),
            "waiting": _joined(sum, gauges, "waiting"),
            "requests": float(self._requests),
            "retries": float(self._retries),
            "servers": float(len(gauges)),
        }

    async def close(self) -> None:
        """Stop everything and leave no process behind. May be called twice; running requests raise `EngineFailure`."""
        self._broken = "the server engine was closed"
        for server in self._fleet.servers:
            server.lose(self._broken)
        await asyncio.sleep(0)  # what was cut off says so before its connections go
        try:
            await self._fleet.close()
        finally:
            processes, self._processes = self._processes, []
            await asyncio.gather(*(process.close() for process in processes))


@dataclass(frozen=True, slots=True)
class _Checkpoint:
    """A checkpoint on disk as a `WeightSource`."""

    folder: Path

    def named_tensors(self) -> Iterable[tuple[str, Any]]:
        raise NotImplementedError("a checkpoint is handed over by its files")

    def write(self, folder: Path) -> None:
        for file in (*self.folder.glob("*.safetensors"), *self.folder.glob("*.json")):
            shutil.copy(file, folder)


async def _written(source: WeightSource, folder: Path, version: int, deadline_s: float) -> None:
    what = f"the sync of version {version} to the vLLM servers"
    try:
        async with asyncio.timeout(deadline_s):
            await asyncio.to_thread(source.write, folder)
    except TimeoutError as error:
        raise EngineFailure(
            f"{what} hangs: writing the checkpoint did not end within engine.vllm.sync_deadline_s = {deadline_s:g} s"
        ) from error
    except Exception as error:
        raise EngineFailure(f"{what} failed at writing the checkpoint: {type(error).__name__}: {error}") from error


def _nothing() -> Completion:
    """What an aborted request has sampled that no server began, or gave back."""
    return Completion(np.empty(0, np.int64), np.empty(0, np.float32), np.empty(0, np.int64), "abort")


def _joined(join: Any, gauges: list[dict[str, float]], key: str) -> float:
    values = [gauge[key] for gauge in gauges if key in gauge]
    return float(join(values)) if values else math.nan
