"""The server engine: samples with one or several vLLM servers over HTTP.

What comes in: token ids. What goes out: sampled ids with their log-probabilities and the version of the weights that
sampled each, as the server reports them and as checked here. Servers are started by agentrl, from any interpreter that
has vLLM, or run already. New weights go over as a checkpoint that the servers read. Knows no messages or environments.

An episode stays with one server, whose prefix cache holds its earlier turns. A request that a server fails is tried
again on another one, from its beginning: nothing of an answer that was not received whole is kept.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentrl.engine.base import Request, WeightSource
from agentrl.engine.http import Client
from agentrl.engine.server import launch
from agentrl.engine.server.fleet import Fleet
from agentrl.engine.server.process import ServerProcess
from agentrl.engine.server.push import push
from agentrl.engine.server.sampler import Sampler
from agentrl.engine.server.server import Server
from agentrl.engine.settings import EngineSettings
from agentrl.engine.vllm.sync import new_folder
from agentrl.errors import EngineFailure
from agentrl.trajectory import Completion


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
        self._folder = Path(model) if Path(model).is_dir() else None  # None: a hub name
        self._vocabulary = launch.vocabulary(self._model)
        self._processes: list[ServerProcess] = []
        self._sync_lock = asyncio.Lock()
        self._run, self._pushes = uuid.uuid4().hex[:12], itertools.count()
        self._started = False  # ever
        self._fleet = Fleet((), settings.server)
        self._sampler = Sampler(self._fleet, settings.server)
        self._sampler.broken = "the server engine was not started: await start() first"

    def _new_name(self, version: int) -> str:
        """What servers call weights of this engine: no other run's weights, and no earlier ones, have that name."""
        return f"agentrl-{self._run}-{next(self._pushes)}-version-{version}"

    def _use(self, servers: Sequence[Server]) -> None:
        """Sample with these servers. Once started, requests wait for weights of the version that there was."""
        self._fleet = Fleet(servers, self._settings.server)
        version = self.version
        self._sampler = Sampler(self._fleet, self._settings.server)
        if self._started:
            self._sampler.version = version
            self._sampler.open.clear()

    @property
    def version(self) -> int:
        return self._sampler.version

    @property
    def max_context(self) -> int:
        return self._settings.max_context

    @property
    def samplers(self) -> int:
        return len(self._fleet.servers)

    @property
    def broken(self) -> str | None:
        servers = self._fleet.servers
        if servers and all(server.lost or server.ended() for server in servers):
            return self._sampler.broken or self._fleet.refusals(self.version)
        return self._sampler.broken

    async def start(self) -> None:
        """Start the servers, or find those that run, and see that they have the policy's weights.

        After a restart requests wait for `update_weights`: the engine's version is not that of these weights.

        Raises:
            EngineFailure: a server did not come up within `engine.vllm.start_deadline_s`, is configured in a way that
                would falsify what it says, or did not take the weights.
        """
        try:
            if self._settings.server.urls:
                await self._find_servers()
            else:
                await self._start_servers()
            self._fleet.watch()
            self._started = True
        except BaseException:
            await self.close()
            raise

    async def _start_servers(self) -> None:
        settings = self._settings
        try:
            for number in range(settings.server.count):
                started = ServerProcess.start(self._model, settings, dtype=self._dtype, seed=self._seed, number=number)
                self._processes.append(started)
        except OSError as error:
            raise EngineFailure(f"a vLLM server cannot be started: {type(error).__name__}: {error}") from error
        clients = [Client(process.name, socket=process.socket) for process in self._processes]
        self._use([Server(c, ended=p.obituary) for c, p in zip(clients, self._processes, strict=True)])
        await launch.await_ready(self._fleet.servers, self._processes, self._settings, self._new_name(0))

    async def _find_servers(self) -> None:
        """Servers that run already may have any weights: they are given the policy's, as version 0."""
        server = self._settings.server
        key = os.environ.get(server.api_key_env, "") if server.api_key_env else ""
        self._use([Server(Client(url, api_key=key)) for url in server.urls])
        for found in self._fleet.servers:
            await launch.examine(found, self._settings, deadline_s=self._settings.vllm.start_deadline_s)
        if self._started:
            return  # the weights of the engine's version come next
        if self._folder is not None:
            await self._push(_Checkpoint(self._folder), 0)
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
        return await self._sampler.complete(request, self._room(request))

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
        await self._sampler.abort(episode_id)

    def release(self, episode_id: str) -> None:
        self._fleet.forget(episode_id)

    async def update_weights(self, source: WeightSource, version: int) -> None:
        """Sample with `source`'s weights from now on; requests that are running go on with them.

        A server that does not take them gets no requests: until a later push, where its weights were not touched, and
        never again where they may have been.

        Raises:
            EngineFailure: the checkpoint could not be written, or no server took it.
        """
        if self._sampler.broken is not None:
            raise EngineFailure(self._sampler.broken)
        try:
            await self._push(source, version)
        except BaseException as error:
            if not self._sampler.open.is_set():  # started again, and without weights of its version
                self._sampler.broken = f"the vLLM servers have no weights to sample with: {error}"
                self._sampler.open.set()
            raise

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
        drained = [server for server in self._fleet.servers if server.drained and not server.lost]
        await asyncio.gather(*(server.check(self._settings.server.health_deadline_s) for server in drained))
        fit = [server for server in self._fleet.servers if not (server.lost or server.drained)]
        name, deadline_s = self._new_name(version), self._settings.vllm.sync_deadline_s
        was_open = self._sampler.open.is_set()
        self._sampler.open.clear()
        try:
            refused = await asyncio.gather(
                *(push(one, checkpoint, name, version, deadline_s=deadline_s) for one in fit)
            )
            if None not in refused:
                reasons = "; ".join(filter(None, refused)) or self._fleet.refusals(version)
                raise EngineFailure(f"the sync of version {version} to the vLLM servers failed: {reasons}")
            self._sampler.version, was_open = version, True
        finally:
            if was_open:
                self._sampler.open.set()

    def _checkpoint_folder(self) -> Path:
        shared = self._settings.server.weights_folder
        if not shared:
            return new_folder(Path(self._model))
        try:
            folder = Path(tempfile.mkdtemp(prefix="agentrl-weights-", dir=Path(shared).expanduser()))
            folder.chmod(0o755)  # a server may run as somebody else
        except OSError as error:
            raise EngineFailure(f"engine.server.weights_folder {shared!r} cannot be written to: {error}") from error
        return folder

    def metrics(self) -> Mapping[str, float]:
        """Counters since the start, and gauges of the servers; see `Sampler.metrics`."""
        return self._sampler.metrics()

    async def close(self) -> None:
        """Stop everything and leave no process behind. May be called twice; running requests raise `EngineFailure`."""
        self._sampler.broken = "the server engine was closed"
        self._sampler.open.set()
        for server in self._fleet.servers:
            server.lose(self._sampler.broken)
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
