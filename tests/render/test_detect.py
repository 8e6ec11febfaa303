"""The parser that fits a chat template, found by what the template writes."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest

from agentrl.errors import ConfigError, UnknownNameError
from agentrl.render import ByteTokenizer, HFTokenizer
from agentrl.render.parsers import PythonBlockParser, PythonicParser, Qwen3CoderParser
from agentrl.render.parsers.detect import choose_parser, detect
from tests.render.conftest import TEMPLATES

WithTemplate = Callable[[str], HFTokenizer]

TURNS = (
    "{%- for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}"
    "{%- for call in message.tool_calls or [] %}{%- set f = call.function %}CALL{%- endfor %}<|im_end|>\n{%- endfor %}"
)
CALLS = {
    "hermes": '\n<tool_call>\n{"name": "{{ f.name }}", "arguments": {{ f.arguments | tojson }}}\n</tool_call>',
    "qwen3_coder": "\n<tool_call>\n<function={{ f.name }}>\n{% for k, v in f.arguments.items() %}"
    "<parameter={{ k }}>\n{{ v }}\n</parameter>\n{% endfor %}</function>\n</tool_call>",
    "llama3_json": '{"name": "{{ f.name }}", "parameters": {{ f.arguments | tojson }}}',
    "pythonic": '[{{ f.name }}({% for k, v in f.arguments.items() %}{{ k }}="{{ v }}"{% endfor %})]',
    "lfm2": "<|tool_call_start|>[{{ f.name }}({% for k, v in f.arguments.items() %}{{ k }}='{{ v }}'{% endfor %})]"
    "<|tool_call_end|>",
    "mistral": "[TOOL_CALLS]{{ f.name }}[ARGS]{{ f.arguments | tojson }}",
    "mistral_v7": '[TOOL_CALLS][{{ (f | tojson)[:-1] }}, "id": "{{ call.id }}"}]',
    "mistral_v3": "{% if call.id | length != 9 %}{{ raise_exception('ids have 9 characters') }}{% endif %}"
    '[TOOL_CALLS] [{{ (f | tojson)[:-1] }}, "id": "{{ call.id }}"}]',
}


@pytest.mark.parametrize("family", CALLS)
def test_the_template_chooses(family: str, with_template: WithTemplate):
    assert detect(with_template(TURNS.replace("CALL", CALLS[family]))) == family


def test_the_templates_that_ship_write_hermes(tiny: HFTokenizer, with_template: WithTemplate):
    assert detect(ByteTokenizer()) == "hermes"
    assert detect(tiny) == "hermes"
    for name in ("qwen25", "qwen3"):
        assert detect(with_template((TEMPLATES / f"{name}.jinja").read_text())) == "hermes"


def test_a_family_that_reads_but_would_write_otherwise_is_better_than_none(with_template: WithTemplate):
    spaced = CALLS["llama3_json"].replace('{"name"', '<|python_tag|>{ "name"')
    assert detect(with_template(TURNS.replace("CALL", spaced))) == "llama3_json"


REFUSED = {
    "another format": ("\ncall:{{ f.name }}", "call:lookup"),
    "calls left out": ("", "policy.parser is 'auto', and none of the parsers (hermes, qwen3_coder"),
    "calls refused": ("{{ raise_exception('no tools') }}", "no tools"),
    "a broken template": ("{{ f.arguments + 'x' }}", "cannot write a tool call to go by"),
    "another value": ('<tool_call>{"name": "lookup", "arguments": {"key": "second"}}</tool_call>', "Set policy.parser"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_where_none_fits_the_error_shows_what_was_written(what: str, with_template: WithTemplate):
    call, told = REFUSED[what]
    with pytest.raises(ConfigError) as error:
        detect(with_template(TURNS.replace("CALL", call)))
    assert told in str(error.value)
    assert "policy.parser" in str(error.value)


def test_the_setting_chooses():
    assert isinstance(choose_parser("pythonic", ByteTokenizer()), PythonicParser)
    assert isinstance(choose_parser("qwen3_coder", ByteTokenizer()), Qwen3CoderParser)
    assert isinstance(choose_parser("python_block:run", ByteTokenizer()), PythonBlockParser)
    with pytest.raises(UnknownNameError, match="qwen3_coder"):
        choose_parser("qwen3coder", ByteTokenizer())


_TRL = find_spec("trl")
SHIPPED = (
    {} if _TRL is None else {p.stem: p for p in (Path(_TRL.origin or "").parent / "chat_templates").glob("*.jinja")}
)
FAMILY = {
    **dict.fromkeys(("qwen2_5", "qwen3", "qwen3_instruct_2507", "qwen3_vl"), "hermes"),
    **dict.fromkeys(("qwen3_5_think", "qwen3_5_nothink", "qwen3_6", "qwen3_8"), "qwen3_coder"),
    **dict.fromkeys(("nemotron_3_nano", "nemotron_3_super", "nemotron_3_ultra"), "qwen3_coder"),
    **dict.fromkeys(("llama3_1", "llama3_2"), "llama3_json"),
    **dict.fromkeys(("lfm2_v2", "lfm2_2_5", "lfm2_2_5_v2", "lfm2_2_5_vl"), "lfm2"),
}


@pytest.mark.skipif(_TRL is None, reason="TRL's chat templates are not installed")
@pytest.mark.parametrize("name", FAMILY)
def test_the_templates_of_known_models_choose(name: str, with_template: WithTemplate):
    assert detect(with_template(SHIPPED[name].read_text(encoding="utf-8"))) == FAMILY[name]
