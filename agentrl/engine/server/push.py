"""One server takes a checkpoint between two tokens.

What comes in: a server and the path of a checkpoint that it can read. What goes out: a server that samples with those
weights and names their version on every token, or one that is given up, with the step that failed. Requests that run
go on with the new weights and the keys and values that the old ones computed.
"""

from __future__ import annotations

from agentrl.engine.http import HttpError
from agentrl.engine.server.server import Server


async def push(server: Server, checkpoint: str, name: str, version: int, *, deadline_s: float) -> str | None:
    """Give the server the checkpoint; why it did not take it, or None. `deadline_s` is that of each step.

    `name` is what the server calls these weights from now on, and nobody calls others.

    A server that fails before its weights are touched is drained and keeps the version it has; one that fails later
    is lost.
    """
    server.syncing = True
    try:
        await _ask(server, "/pause", deadline_s, query={"mode": "keep", "clear_cache": "false"})
    except HttpError as error:
        server.drain(str(error), cut=True)  # it may be paused, and what runs on it would wait for ever
        return str(error)
    else:
        return await _swap(server, checkpoint, name, version, deadline_s)
    finally:
        server.syncing = False


async def _swap(server: Server, checkpoint: str, name: str, version: int, deadline_s: float) -> str | None:
    """The steps from the first that touches the weights on."""
    try:
        reload = {"method": "reload_weights", "kwargs": {"weights_path": checkpoint}}
        await _ask(server, "/collective_rpc", deadline_s, reload)
        await name_weights(server, name, version, deadline_s=deadline_s)
        await _ask(server, "/resume", deadline_s)
    except HttpError as error:
        server.lose(f"its push of version {version} was cut short: {error}")
        return str(error)
    except BaseException:
        server.lose(f"its push of version {version} was cancelled halfway")
        raise
    return None


async def name_weights(server: Server, name: str, version: int, *, deadline_s: float) -> None:
    """Name the weights that the server has loaded already.

    Raises:
        HttpError: it did not take the name.
    """
    await _ask(server, "/update_weight_version", deadline_s, {"new_version": name})
    server.take(name, version)


async def _ask(
    server: Server, path: str, deadline_s: float, body: object = None, query: dict[str, str] | None = None
) -> None:
    await server.client.ask("POST", path, body, query=query, deadline_s=deadline_s)
