"""Strategies for what parsers are given: messages that a family can write, and text of every kind of wrongness."""

from __future__ import annotations

import random
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path

from hypothesis import strategies as st

from agentrl.messages import AssistantMessage, ToolCall
from tests.render.chats import json_values, names

TEXT = st.text(max_size=12)
WORDS = st.sampled_from(
    ["a", "</tool_call>", "</parameter>", "<think>", "[f(x=1)]", "```", "\n", "{}", "'", '"', "\\", "\r\n", "é🙂", " "]
)
LIVELY = st.lists(WORDS | TEXT, max_size=5).map("".join)


@dataclass(frozen=True)
class Written:
    """What one family can write and read back."""

    foreign: str  # no text around the calls may match: it would be markup
    call_names: st.SearchStrategy[str]
    keys: st.SearchStrategy[str]
    values: st.SearchStrategy[object]
    call_id: str = "call_{}"


_THINK = "</?think>"
_JSON = json_values(LIVELY)
_VALUE_MARKUP = re.compile(
    r"</parameter>(?=\s*(<parameter=|</function>))|^[ \t]*(<parameter=|</?function)", re.MULTILINE
)
_XML_NAME = names | st.sampled_from(["a-b", "ns.f", "ключ", "with blank"])
_MISTRAL = Written(rf"\[TOOL_CALLS\]|\[/?THINK\]|{_THINK}", names, LIVELY, _JSON, "call{:05d}")
_PYTHONIC = Written(rf"\[|<\|python|<\|tool|{_THINK}", names | st.just("a.b-c"), names | st.just("from"), _JSON)
WRITTEN: dict[str, Written] = {
    "hermes": Written(f"<tool_call>|{_THINK}", LIVELY.filter(bool), LIVELY, _JSON),
    "qwen3_coder": Written(
        f"<tool_call>|<function=|{_THINK}", _XML_NAME, _XML_NAME, LIVELY.filter(lambda t: not _VALUE_MARKUP.search(t))
    ),
    "llama3_json": Written(rf"\{{|<\|python_tag|{_THINK}", names, LIVELY, _JSON),
    "pythonic": _PYTHONIC,
    "lfm2": _PYTHONIC,
    "mistral": _MISTRAL,
    "mistral_v7": _MISTRAL,
    "mistral_v3": _MISTRAL,
    "python_block": Written(f"`|~|{_THINK}", st.just("python"), st.just("code"), LIVELY),
}


@st.composite
def messages(draw: st.DrawFn, family: str) -> AssistantMessage:
    """A message that the family can write and that reads back equal."""
    kind = WRITTEN[family]
    text = LIVELY.map(str.strip).filter(lambda t: not re.search(kind.foreign, t))
    whole = family == "python_block"
    arguments = st.dictionaries(kind.keys, kind.values, min_size=int(whole), max_size=1 if whole else 3)
    pairs = draw(st.lists(st.tuples(kind.call_names, arguments), max_size=3))
    calls = tuple(ToolCall(id=kind.call_id.format(i), name=n, arguments=a) for i, (n, a) in enumerate(pairs))
    return AssistantMessage(content=draw(text), thinking=draw(st.none() | text), tool_calls=calls)


CORPUS = tomllib.loads((Path(__file__).parent / "corpus.toml").read_text(encoding="utf-8"))["case"]
REAL = [case["text"] for case in CORPUS]
_TOKENS = r"""
<tool_call> </tool_call> <think> </think> [THINK] [/THINK] <function= <function=f> </function> <parameter= <parameter=a>
</parameter> {"name": "f", "arguments": "parameters": {"a": 1} }} }; ; <|python_tag|> f.call( [f( a= 1 , ) )] [ ] { } (
" ' \ \" \' \n \777 ''' [TOOL_CALLS] [ARGS] [CALL_ID] [TOOL_CALLS][{ [TOOL_CALLS]f[ARGS]{ g[ARGS]{} <|python_start|>
<|python_end|> <|tool_call_start|> <|tool_call_end|> ```python ```py ``` ```` ````md ~~~
{"function":{ NaN 1e999 -Infinity 0x_ 1_0 b'x' f'{x}'
True null "\ud83d" "id": "abcdefghi" "type": "function" : = é 🙂 {"name":"f","parameters":{}} 99999999999999999999
"""
_BLANK = [
    "\n",
    "\n\n",
    " ",
    "\t",
    "\r\n",
    "```python\n",
    "\n```\n",
    "\n[f(a=1)]",
    '<tool_call>{"name": "f", "arguments": {"',
]
_LONG = ["[" * 50, "{" * 50, '{"a":' * 40, "f(a=[" * 40, "x" * 99, "9" * 5000]
MARKUP = [*_TOKENS.split(), *_BLANK, *_LONG, '"""', "\ud800", "\x00"]
ANYTHING = st.text(st.characters(), max_size=6) | st.text(st.characters(categories=["Cs", "Cc", "Zs"]), max_size=6)
PIECES = st.sampled_from(MARKUP) | ANYTHING


@st.composite
def mutated(draw: st.DrawFn) -> str:
    """What a model wrote, with pieces replaced, cut out or put in; then perhaps cut."""
    text: str = draw(st.sampled_from(REAL))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(text)))
        end = draw(st.integers(start, min(len(text), start + 8)))
        text = text[:start] + draw(PIECES) + text[end:]
    return text[: draw(st.integers(0, len(text)))] if draw(st.booleans()) else text


inputs = st.lists(PIECES, max_size=12).map("".join) | mutated() | st.text(st.characters(), max_size=40)


def random_text(rng: random.Random) -> str:
    """The same kinds of text from plain random numbers, which are faster by far."""
    kind = rng.random()
    if kind < 0.1:
        return "".join(_random_character(rng) for _ in range(rng.randrange(60)))
    if kind < 0.5:
        return "".join(_random_piece(rng) for _ in range(rng.randrange(1, 16)))
    text = rng.choice(REAL) if kind < 0.9 else rng.choice(REAL) + rng.choice(REAL)
    for _ in range(rng.randrange(1, 5)):
        start = rng.randrange(len(text) + 1)
        text = text[:start] + _random_piece(rng) * rng.randrange(2) + text[start + rng.randrange(9) :]
    return text[: rng.randrange(len(text) + 1)] if rng.random() < 0.3 else text


def _random_piece(rng: random.Random) -> str:
    if rng.random() < 0.8:
        return rng.choice(MARKUP)
    return "".join(_random_character(rng) for _ in range(rng.randrange(5)))


def _random_character(rng: random.Random) -> str:
    return chr(
        rng.choice((rng.randrange(128), rng.randrange(0x3000), rng.randrange(0xD800, 0xE000), rng.randrange(0x110000)))
    )


HOSTILE: tuple[str, ...] = (
    *("<tool_call>", '<tool_call>{"', "</tool_call>", "<think>", "</think>", "[THINK]", "[/THINK]"),
    *(
        "[",
        "]",
        "{",
        "}",
        "(",
        '"',
        "'",
        "\\",
        '\\"',
        "'''",
        '"""',
        '"""\\',
        "`",
        " ",
        "\n",
        "\t\n",
        ";",
        "; {",
        "a",
        "9",
        "é",
    ),
    *(
        "<function=",
        "<function=a>",
        "<parameter=a>",
        "<function=a><parameter=b>",
        "\n  <",
        "<function=a><parameter=b></parameter>",
    ),
    *('{"name": "', '{"name": "f", "parameters": ', '{"name": "f", "parameters": {}}', '{"type": "function", ', "{ "),
    *('{"a":', '{"', '{"a', '{"\\"', '{"a":1}', "{ \n", '{"function":{"name":"f"'),
    *(
        "<|python_tag|>",
        "<|python_tag|>f.call(",
        "[f(",
        "\n[f(",
        "[f(a=",
        "[f(a='",
        "[f(a=[",
        "[f(a=1),",
        "f(a=1),",
        "[f(a=1)]",
    ),
    *("[TOOL_CALLS]", "[TOOL_CALLS][{", "[TOOL_CALLS]f[ARGS]{", "[TOOL_CALLS]f[ARGS]{}", "[TOOL_CALLS]f[CALL_ID]"),
    *("```python\n", "```\n", "``` ", "```py", "````python\n```\n", "````md\n", "\n~~~ ", "g[ARGS]{}"),
)
PREFIXES: tuple[str, ...] = (
    *("", "<think>", "<tool_call>", '<tool_call>{"name": "f", "arguments": {"a": "', "<function=a><parameter=b>"),
    *(
        '{"name": "f", "parameters": {"a": ',
        "[f(a=",
        '[f(a="',
        '[f(a="""',
        "[f(a=1, x=[1],",
        "[TOOL_CALLS][{",
        "```python\n",
    ),
)
