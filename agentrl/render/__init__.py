"""Messages <-> token ids: chat templates rendered append-only, tool-call parsers, tokenizers."""

from agentrl.render.parsers import PARSERS, HermesParser, ToolParser
from agentrl.render.renderer import Renderer
from agentrl.render.tokenizer import ByteTokenizer, HFTokenizer, Tokenizer

__all__ = ["PARSERS", "ByteTokenizer", "HFTokenizer", "HermesParser", "Renderer", "Tokenizer", "ToolParser"]
