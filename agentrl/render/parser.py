"""The names of `agentrl.render.parsers` that readers and writers of messages ask for."""

from agentrl.render.parsers import MAX_CALL_CHARS, MAX_CALLS, MAX_DEPTH, PARSERS, HermesParser, ToolParser

__all__ = ["MAX_CALLS", "MAX_CALL_CHARS", "MAX_DEPTH", "PARSERS", "HermesParser", "ToolParser"]
