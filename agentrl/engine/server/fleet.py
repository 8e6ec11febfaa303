"""All servers of an engine: which one samples for an episode, and a watch on each one's health.

What comes in: episodes that want a server. What goes out: a server that is healthy and has the engine's weights, the
same for every turn of an episode while that lasts, for its prefix cache holds the earlier turns. Knows no requests.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Sequence

from agentrl.engine.server.server import Server
from agentrl.engine.settings import ServerSettings


class Fleet:
    """Routes episodes and watches servers; `watch` begins and `close` ends the watching."""

    def __init__(self, servers: Sequence[Server], settings: ServerSettings) -> None:
        self.servers = tuple(servers)
        self._settings = settings
        self._home: dict[str, Server] = {}  # episode id -> the server that holds its prefix
        self._episodes: Counter[str] = Counter()  # that have their home there, by the server's name
        self._watches: list[asyncio.Task[None]] = []

    def pick(
        self, episode_id: str, version: int, *, number: int | None = None, failed: Server | None = None
    ) -> Server | None:
        """A server that may sample `version` for the episode, or None.

        Args:
            number: of the server that is wanted; another one is taken only where it may not sample or has just failed.
            failed: one that has just failed this request; taken only where there is no other.
        """
        fit = [server for server in self.servers if server.refusal(version) is None]
        wanted = None if number is None else self.servers[number]
        if wanted in fit and wanted is not failed:
            return wanted
        home = self._home.get(episode_id)
        if home in fit and home is not failed:
            return home
        others = [server for server in fit if server is not failed] or fit
        if not others:
            return None
        chosen = min(others, key=lambda server: (self._episodes[server.name], server.load))
        self.forget(episode_id)
        self._home[episode_id] = chosen
        self._episodes[chosen.name] += 1
        return chosen

    def forget(self, episode_id: str) -> None:
        home = self._home.pop(episode_id, None)
        if home is not None:
            self._episodes[home.name] -= 1

    def refusals(self, version: int) -> str:
        """Why no server samples, one by one."""
        return "; ".join(reason for server in self.servers if (reason := server.refusal(version)))

    def watch(self) -> None:
        """Look at every server now and then, in the background, until `close`."""
        self._watches = [asyncio.create_task(self._watch(server)) for server in self.servers]

    async def _watch(self, server: Server) -> None:
        while server.lost is None:
            await self._until_due(server)
            server.look.clear()
            await server.check(self._settings.health_deadline_s)
            if server.drained is not None:
                server.look.clear()  # it has just been looked at
                await asyncio.sleep(self._settings.backoff_s)

    async def _until_due(self, server: Server) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._settings.health_every_s):
                await server.look.wait()

    async def close(self) -> None:
        """Stop watching and close every connection. May be called twice."""
        watches, self._watches = self._watches, []
        for watch in watches:
            watch.cancel()
        await asyncio.gather(*watches, return_exceptions=True)
        for server in self.servers:
            await server.client.close()
        self._home.clear()
