"""The vLLM engine, GPU and CPU builds."""

from agentrl.engine.vllm.engine import VllmEngine

__all__ = ["VllmEngine"]
