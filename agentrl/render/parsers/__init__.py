"""Tool-call parsers: the text of an action <-> the assistant's message, one family a file.

`PARSERS` names them, in the order in which `detect` prefers them; `make_parser` reads the setting.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from agentrl.errors import ConfigError, UnknownNameError
from agentrl.render.parsers.base import MAX_CALL_CHARS, MAX_CALLS, ToolParser
from agentrl.render.parsers.hermes import HermesParser
from agentrl.render.parsers.llama3_json import Llama3JsonParser
from agentrl.render.parsers.mistral import MistralListParser, MistralParser, mistral_v3
from agentrl.render.parsers.python_block import PythonBlockParser
from agentrl.render.parsers.pythonic import PythonicParser, lfm2
from agentrl.render.parsers.qwen3_coder import Qwen3CoderParser
from agentrl.render.parsers.values import MAX_DEPTH

AUTO = "auto"

PARSERS: Mapping[str, Callable[[], ToolParser]] = {
    "hermes": HermesParser,
    "qwen3_coder": Qwen3CoderParser,
    "llama3_json": Llama3JsonParser,
    "pythonic": PythonicParser,
    "lfm2": lfm2,
    "mistral": MistralParser,
    "mistral_v7": MistralListParser,
    "mistral_v3": mistral_v3,
    "python_block": PythonBlockParser,
}


def make_parser(setting: str) -> ToolParser:
    """The parser of a family: its name, or "python_block:TOOL" and "python_block:TOOL.ARGUMENT".

    Raises:
        UserError: there is no such family, or what stands after its name cannot be read.
    """
    name, colon, target = setting.partition(":")
    if name not in PARSERS:
        raise UnknownNameError("parser", setting, (AUTO, *PARSERS), hint="Set policy.parser.")
    if not colon:
        return PARSERS[name]()
    tool, dot, argument = target.partition(".")
    if name != "python_block" or not tool or (dot and not argument):
        raise ConfigError(
            f"policy.parser is {setting!r}: only python_block takes a tool, as in 'python_block:run_code' or "
            "'python_block:run_code.source'"
        )
    return PythonBlockParser(tool, argument or "code")


__all__ = [
    "AUTO",
    "MAX_CALLS",
    "MAX_CALL_CHARS",
    "MAX_DEPTH",
    "PARSERS",
    "HermesParser",
    "Llama3JsonParser",
    "MistralListParser",
    "MistralParser",
    "PythonBlockParser",
    "PythonicParser",
    "Qwen3CoderParser",
    "ToolParser",
    "make_parser",
]
