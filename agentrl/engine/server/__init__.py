"""The server engine: vLLM over HTTP, in another virtual environment or on another machine."""

from agentrl.engine.server.engine import VllmServerEngine

__all__ = ["VllmServerEngine"]
