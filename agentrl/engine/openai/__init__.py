"""The engine for OpenAI-compatible endpoints, for evaluation only."""

from agentrl.engine.openai.engine import OpenAIEngine

__all__ = ["OpenAIEngine"]
