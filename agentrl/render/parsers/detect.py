"""Which family a chat template belongs to: the parser that reads back what the template writes for a call.

What comes in: a tokenizer, of which only the chat template is asked. What goes out: a parser, or a `ConfigError` that
shows what the template wrote. Knows no model by its name.
"""

from __future__ import annotations

from agentrl.errors import ConfigError
from agentrl.messages import AssistantMessage, ToolCall, UserMessage, to_dicts
from agentrl.render.parsers import AUTO, PARSERS, ToolParser, make_parser
from agentrl.render.tokenizer import Tokenizer

_QUESTION = "zqquestionqz"
_CALL = ToolCall(
    id="call00000", name="lookup", arguments={"key": "first value"}
)  # an id as Mistral's templates want it
_SCHEMA = {
    "type": "function",
    "function": {
        "name": "lookup",
        "description": "Look a key up.",
        "parameters": {"type": "object", "properties": {"key": {"type": "string"}}, "required": ["key"]},
    },
}
_MOST_SHOWN = 300


def choose_parser(setting: str, tokenizer: Tokenizer) -> ToolParser:
    """The parser that `policy.parser` asks for: by name, or "auto" for the one that fits the chat template.

    Raises:
        UserError: there is no such family, or none fits the template.
    """
    return PARSERS[detect(tokenizer)]() if setting == AUTO else make_parser(setting)


def detect(tokenizer: Tokenizer) -> str:
    """The name of the family in which the tokenizer's chat template writes a call.

    Of several that read the call, those that would write it the same come first, then the order of `PARSERS`.

    Raises:
        ConfigError: no parser reads what the template writes.
    """
    written = _written(tokenizer)
    known = {name: parser for name, make in PARSERS.items() if (parser := make()).in_templates}
    readers = [name for name, parser in known.items() if _reads(parser, written)]
    if not readers:
        raise ConfigError(
            f"policy.parser is 'auto', and none of the parsers ({', '.join(known)}) reads the tool call "
            f"{_CALL.name}(key={_CALL.arguments['key']!r}) in what the chat template writes for it: "
            f"{written[:_MOST_SHOWN]!r}. Set policy.parser to the family that this model writes, or use a chat "
            "template that writes tool calls"
        )
    message = AssistantMessage(tool_calls=(_CALL,))
    return next((name for name in readers if known[name].format(message) in written), readers[0])


def _written(tokenizer: Tokenizer) -> str:
    """What the template writes after the user's question: the call, between markup of the turns."""
    chat = to_dicts((UserMessage(content=_QUESTION), AssistantMessage(tool_calls=(_CALL,))))
    try:
        text = tokenizer.chat(chat, [_SCHEMA], False)
    except Exception as error:  # a template is foreign code: beside its own refusals it raises anything
        raise ConfigError(
            f"policy.parser is 'auto', but the chat template cannot write a tool call to go by: {error}. Set "
            f"policy.parser to one of {', '.join(PARSERS)}"
        ) from error
    return text.rpartition(_QUESTION)[2]


def _reads(parser: ToolParser, written: str) -> bool:
    calls = parser.parse(written).tool_calls
    return [(call.name, call.arguments) for call in calls] == [(_CALL.name, _CALL.arguments)]
