"""The embedded engine: transformers, in this process."""

from agentrl.engine.hf.engine import HFEngine

__all__ = ["HFEngine"]
