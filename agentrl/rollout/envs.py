"""Environments between episodes.

What comes in: a way to make environments. What goes out: one for each episode that runs, used again afterwards unless
its episode failed or was cut off, or left a call behind that still runs in it. Knows no engine and no task.
"""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from agentrl.env.base import Env
from agentrl.env.calling import invoke
from agentrl.errors import BoundaryError, EnvFailure, UserError

_CLOSE_DEADLINE_S = 10.0


class EnvPool:
    """Environments between episodes. One that is not healthy is closed and never used again."""

    def __init__(self, make_env: Callable[[], Env]) -> None:
        self._make_env = make_env
        self._free: list[Env] = []
        self._made = False  # whether one could be made; after that, what fails is not the user's to mend

    def take(self) -> Env:
        """A free environment, or a new one.

        Raises:
            EnvFailure: it could not be made.
            UserError: not even the first one could be made.
        """
        if self._free:
            return self._free.pop()
        try:
            env = self._make_env()
        except BoundaryError:
            raise
        except Exception as error:
            if isinstance(error, UserError) and not self._made:
                raise
            raise EnvFailure(f"the environment could not be made: {type(error).__name__}: {error}") from error
        self._made = True
        return env

    async def give(self, env: Env, *, healthy: bool) -> None:
        if healthy:
            self._free.append(env)
        else:
            await _close(env)

    async def close(self) -> None:
        while self._free:
            await _close(self._free.pop())


@asynccontextmanager
async def env_pool(make_env: Callable[[], Env] | EnvPool) -> AsyncIterator[EnvPool]:
    """The pool that was given, or a new one that is closed at the end."""
    if isinstance(make_env, EnvPool):
        yield make_env
        return
    pool = EnvPool(make_env)
    try:
        yield pool
    finally:
        await pool.close()


async def _close(env: Env) -> None:
    """Close an environment; one that cannot be closed is left behind with a warning, for its episodes are over."""
    try:
        async with asyncio.timeout(_CLOSE_DEADLINE_S):
            await invoke(env.close)
    except Exception as error:
        warnings.warn(f"{type(env).__name__}.close: {type(error).__name__}: {error}", RuntimeWarning, stacklevel=2)
