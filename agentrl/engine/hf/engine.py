"""The embedded engine: continuous batching over a transformers causal language model, in this process.

What comes in: requests, at any time. What goes out: completions, each as soon as its last token is sampled. Requests
join and leave between decoding steps; no request waits for the end of another. Knows no messages, tools, environments
or rewards.

Equal weights, requests, seeds and order of arrival give bit-equal tokens and log-probabilities. So wall time must not
decide which step a request joins: before every step the event loop is given turns until no new request came for
`QUIET_TURNS` of them, and episodes that wait for nothing but the loop always come back in time. A weight update forgets
all that was kept, so that what happened before it cannot show after it.

With a GPU the model computes in a thread of its own and the loop stays free. On a CPU it computes in the loop's thread,
and the loop has its turns between steps: a second thread that computes would bring a second set of OpenMP workers, and
with more workers than cores every operation, the learner's too, waits asleep instead of spinning (measured on 2 cores:
a step of 10 ms takes 15).
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

import numpy as np
import torch

from agentrl.engine.base import Request, WeightSource
from agentrl.engine.counts import PromptCounts
from agentrl.engine.hf.model import HFModel
from agentrl.engine.hf.prefill import chunk_prompts, chunk_rows, gather_prompts
from agentrl.engine.hf.prefixes import Prefix, Prefixes
from agentrl.engine.hf.row import Row, row_for
from agentrl.engine.hf.sampling import Draws, Sampled
from agentrl.engine.settings import EngineSettings
from agentrl.errors import EngineFailure
from agentrl.trajectory import Completion

QUIET_TURNS = 16  # turns of the event loop without a new request, after which the next step starts
PREFILL_TOKENS = 8192  # most tokens of one forward pass over prompts, padding included
KEPT_SHARE = 4  # prefixes kept between turns may hold max_batch * max_context / KEPT_SHARE tokens

Result = TypeVar("Result")


class HFEngine:
    """Samples from a model that it owns: hand it a copy that nobody else uses."""

    def __init__(
        self,
        model: torch.nn.Module,
        settings: EngineSettings,
        *,
        device: str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        """
        Raises:
            ConfigError: the model cannot be served.
        """
        self._settings = settings
        self._model = HFModel(
            model,
            max_rows=settings.max_batch,
            max_positions=settings.max_context,
            device=torch.device(device),
            dtype=dtype,
        )
        self._prefixes = Prefixes(settings.max_batch * settings.max_context // KEPT_SHARE)
        self._prompts = PromptCounts()
        self._version = 0
        self._weights_loaded = 0
        self._open: dict[Row, None] = {}  # every request that was not answered yet
        self._waiting: deque[Row] = deque()  # in order of arrival
        self._rows: list[Row] = []  # row i of the model belongs to self._rows[i]
        self._arrivals = 0
        self._wake = asyncio.Event()
        self._step_lock = asyncio.Lock()  # held by a step, and by a weight update
        self._thread = None if torch.device(device).type == "cpu" else compute_thread()
        self._server: asyncio.Task[None] | None = None
        self._closed = False

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
        return None  # a new start would not help: it is in this process

    def metrics(self) -> Mapping[str, float]:
        return self._prompts.metrics()

    async def start(self) -> None:
        if self._closed:
            raise EngineFailure("the engine is closed; make a new one")
        if self._server is None:
            self._server = asyncio.create_task(self._serve(), name="hf-engine")

    async def complete(self, request: Request) -> Completion:
        if self._closed or self._server is None or self._server.done():
            raise EngineFailure("the engine is not running; call start() before complete(), and close() last")
        row = row_for(request, vocab_size=self._model.vocab_size, max_context=self.max_context)
        self._open[row] = None
        row.future.add_done_callback(lambda _: self._open.pop(row))
        self._waiting.append(row)
        self._arrivals += 1
        self._wake.set()
        return await row.future

    async def abort(self, episode_id: str) -> None:
        stopped = [row for row in self._open if row.episode_id == episode_id and row.finish_reason is None]
        for row in stopped:
            row.finish_reason = "abort"
            if row in self._waiting:
                self._waiting.remove(row)
                row.resolve()
        if stopped:
            await asyncio.wait([row.future for row in stopped])

    def release(self, episode_id: str) -> None:
        self._prefixes.drop(episode_id)

    async def update_weights(self, source: WeightSource, version: int) -> None:
        await asyncio.shield(self._update_weights(source, version))  # a half-done update would have no version

    async def close(self) -> None:
        self._closed = True
        self._wake.set()
        if self._server is not None:
            await asyncio.wait([self._server])
        async with self._step_lock:
            self._fail_all(EngineFailure("the engine was closed"))
            self._prefixes.clear()
            if self._thread is not None:
                self._thread.shutdown()

    async def _serve(self) -> None:
        """Run steps until the engine is closed."""
        try:
            while not self._closed:
                if not self._rows and not self._waiting:
                    self._wake.clear()
                    await self._wake.wait()
                await self._settle()
                async with self._step_lock:
                    await self._step()
        except Exception as error:
            self._fail_all(_failure(error))
        finally:
            self._fail_all(EngineFailure("the engine was stopped"))

    async def _settle(self) -> None:
        """Give the event loop turns until requests stopped coming."""
        quiet, seen = 0, self._arrivals
        while quiet < QUIET_TURNS:
            await asyncio.sleep(0)
            quiet = quiet + 1 if self._arrivals == seen else 0
            seen = self._arrivals

    async def _step(self) -> None:
        """Let requests leave and join, then sample one token for every row."""
        await self._leave()
        await self._join()
        await self._leave()  # those whose first token was their last
        if self._rows:
            await self._decode()
            await self._leave()

    async def _join(self) -> None:
        """Admit waiting requests as far as there is room; compute their prompts and sample their first tokens."""
        joining: list[Row] = []
        while self._waiting and len(self._rows) + len(joining) < self._settings.max_batch:
            row = self._waiting.popleft()
            if not row.done:  # else it was cancelled while it waited
                joining.append(row)
        prompts = gather_prompts(joining, self._prefixes)
        for prompt in prompts:
            whole = (prompt.start + len(prompt.token_ids)) * len(prompt.rows)
            self._prompts.add(whole, whole - len(prompt.token_ids), requests=len(prompt.rows))
        for chunk in chunk_prompts(prompts, PREFILL_TOKENS):
            first = len(self._rows)
            rows, owners = chunk_rows(chunk)
            now = time.perf_counter()
            for row in rows:
                row.weights_loaded, row.begun = self._weights_loaded, now
            self._rows.extend(rows)
            await self._sample(first, partial(self._model.prefill, chunk, owners, first))

    async def _decode(self) -> None:
        token_ids = np.array([row.token_ids[-1] for row in self._rows], dtype=np.int64)
        positions = np.array([row.computed for row in self._rows], dtype=np.int64)
        await self._sample(0, partial(self._model.decode, token_ids, positions))

    async def _sample(self, first: int, compute: Callable[[Draws], Sampled]) -> None:
        """Sample a token for each row from `first` on; if that breaks, they fail and the others go on."""
        rows = self._rows[first:]
        draws = Draws(
            temperatures=np.array([row.temperature for row in rows], dtype=np.float32),
            uniforms=np.array([row.next_uniform for row in rows], dtype=np.float64),
        )
        try:
            sampled = await self._run(compute, draws)
            if not np.isfinite(sampled.logprobs).all():
                raise EngineFailure(f"the model's logits are not finite (weights version {self._version})")
        except Exception as error:
            await self._fail_rows(first, error)
            return
        for row, token_id, logprob in zip(rows, sampled.token_ids.tolist(), sampled.logprobs.tolist(), strict=True):
            if not row.done:
                row.accept(token_id, logprob, self._version)

    async def _leave(self) -> None:
        """Take rows that are done out, keep what was computed for their episodes, and answer them.

        The last row takes a leaving one's place, so that rows stay side by side.
        """
        leaving = [index for index, row in enumerate(self._rows) if row.done]
        if not leaving:
            return
        gone = [self._rows[index] for index in leaving]
        reads = [(index, self._rows[index].computed) for index in leaving if self._worth_keeping(self._rows[index])]
        kept = [self._rows[index] for index, _ in reads]
        moves = []
        for index in reversed(leaving):
            last = self._rows.pop()
            if index < len(self._rows):
                moves.append((len(self._rows), index, last.computed))
                self._rows[index] = last
        if reads or moves:
            try:
                states = await self._run(self._model.rearrange, reads, moves)
                for row, state in zip(kept, states, strict=True):
                    self._prefixes.keep(row.episode_id, Prefix(row.computed_ids, state))
            except Exception as error:
                await self._fail_rows(0, error)
        for row in gone:
            row.resolve()

    def _worth_keeping(self, row: Row) -> bool:
        """True where the episode may go on, and all that was computed for it is of the present weights."""
        return not row.future.done() and row.weights_loaded == self._weights_loaded

    async def _update_weights(self, source: WeightSource, version: int) -> None:
        async with self._step_lock:
            if self._closed:
                raise EngineFailure("the engine is closed; it takes no weights")
            try:
                await self._run(lambda: self._model.load(source.named_tensors()))
            except Exception as error:
                raise EngineFailure(f"weights of version {version} could not be loaded: {error}") from error
            self._version = version
            self._weights_loaded += 1
            self._prefixes.clear()
            if not self._rows:
                await self._run(self._model.forget, 0)

    async def _fail_rows(self, first: int, error: Exception) -> None:
        """Fail the rows from `first` on, and forget whatever was computed for them."""
        for row in self._rows[first:]:
            row.fail(_failure(error))
        del self._rows[first:]
        await self._run(self._model.forget, first)

    async def _run(self, call: Callable[..., Result], *arguments: object) -> Result:
        """Call the model where it computes."""
        if self._thread is None:
            return call(*arguments)
        return await asyncio.get_running_loop().run_in_executor(self._thread, call, *arguments)

    def _fail_all(self, error: EngineFailure) -> None:
        for row in list(self._open):
            row.fail(error)
        self._rows.clear()
        self._waiting.clear()


def compute_thread() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=1, thread_name_prefix="hf-engine")


def _failure(error: Exception) -> EngineFailure:
    if isinstance(error, EngineFailure):
        return error
    failure = EngineFailure(f"a step of the engine broke: {type(error).__name__}: {error}")
    failure.__cause__ = error
    return failure
