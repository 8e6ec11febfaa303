"""Writes docs/templates.md: what the renderer makes of every chat template that TRL ships.

What comes in: the templates, each on a byte-level tokenizer with its special tokens. What goes out: Markdown. A test
compares the page with what this would write, so run `python docs/templates.py` after a change to the renderer.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from agentrl.errors import ConfigError
from agentrl.messages import AssistantMessage, Message, ToolCall, ToolMessage, UserMessage
from agentrl.render.parsers import make_parser
from agentrl.render.parsers.detect import detect
from agentrl.render.renderer import Renderer
from agentrl.render.rules import Template
from tests.render.chats import SCHEMA
from tests.render.trl_templates import NAMES, PROBLEM, TemplateParser, as_the_template_says, tokenizer

PAGE = Path(__file__).parent / "templates.md"
HEAD = """# Chat templates

Written by `python docs/templates.py`; do not edit. What the renderer makes of each chat template that TRL 1.16 ships,
when an answer of the environment is added and the policy speaks as the template itself would write it.

A chat grows turn by turn, and each turn is marked with how its prompt came about (`Turn.rendered`; shares other than
`exact` are logged as `rendered_<how>`):

* **exact**: the stream is, token for token, what the template renders of all messages.
* **bridged**: the template shows the same messages, but spells what the policy sampled otherwise. The sampled ids
  stay.
* **forked**: the template rewrites what stood before (it leaves out thinking, say). A new segment begins, and its
  prompt is what the template renders of all messages. The segments of one episode count once in group statistics.
* **kept**: it would be forked, but `rollout.history = "append"` goes on with the one stream.

`rollout.history = "template"` is the default: a policy is trained on the prompts that it is given in use. Where a
template rewrites nothing, nothing is forked, and it costs nothing. Where it strips thinking, an episode has several
segments, and their prompts are sampled from and trained on more than once: "append" is cheaper, and the policy then
sees thinking in its history that it will not see in use. A policy may always spell something otherwise than its
template; then `bridged` stands where the table says `exact`, and never the other way round.

Nothing of this costs a rendering of the whole chat, except a fork. How a template treats a history is found on
stand-ins, once for each shape of a chat (`agentrl/render/rules.py`), and proven on probe chats when the renderer is
made.

The columns: a tool result after a call, without and with thinking; the user's next question after an answer, without
and with thinking (where the template shows calls, the chat before holds one). `-`: refused with tools, for the reason
given; such a template serves agents without tools. In brackets: no parser of that family ships yet, so `agentrl`
refuses it with tools too; the table tells what would be.

| template | calls | result | result, thinking | question | question, thinking |
|---|---|---|---|---|---|
"""


def page() -> str:
    """The text of the page."""
    if PROBLEM:
        raise SystemExit(PROBLEM)
    rows, reasons = zip(*map(_row, NAMES), strict=True)
    notes = dict.fromkeys(reason for reason in reasons if reason)
    return (
        HEAD
        + "\n".join(rows)
        + "\n\nWhy not with tools:\n\n"
        + "\n".join(
            f"* {note}: {', '.join(f'`{n}`' for n, r in zip(NAMES, reasons, strict=True) if r == note)}"
            for note in notes
        )
        + "\n"
    )


def _row(name: str) -> tuple[str, str]:
    made = tokenizer(name, 0)
    try:
        family = detect(made)
        renderer = Renderer(made, make_parser(family))
    except ConfigError:
        family = ""
    if not family or renderer.no_tools:
        renderer = Renderer(made, TemplateParser(Template(made)))
    calls = "-" if renderer.no_tools else f"`{family}`" if family else "(none)"
    reason = renderer.no_tools or ""
    if "refuses the messages" in reason:
        reason = "it refuses tool results: " + reason.rpartition(": ")[2]
    events = [
        _event(renderer, kind, thinking) for kind in ("result", "question") for thinking in (None, "Let me think.")
    ]
    return f"| `{name}` | {calls} | {' | '.join(events)} |", reason.removeprefix("the chat template ")


def _event(renderer: Renderer, kind: str, thinking: str | None) -> str:
    """How the last turn of a small chat comes about."""
    tools = renderer.no_tools is None
    if kind == "result" and not tools:
        return "-"
    called = ToolCall(id="call00000", name="calculator", arguments={"expression": "2+3"})
    result: list[Message] = [ToolMessage(content="5", name="calculator", call_id=called.id)]
    turns = [(AssistantMessage(tool_calls=(called,), thinking=thinking), result)] if tools else []
    if kind == "question":
        turns.append((AssistantMessage(content="It is 5.", thinking=thinking), [UserMessage(content="And 4+5?")]))
    messages: list[Message] = [UserMessage(content="What is 2+3?")]
    schemas = [SCHEMA] if tools else []
    chat = renderer.begin(messages, schemas)
    rendered = "exact"
    for action, answer in turns:
        before = renderer.prompt(messages, schemas)
        messages += [action, *answer]
        says = as_the_template_says(renderer, action, before, renderer.prompt(messages, schemas))
        sampled = renderer.encode_action(action) if says is None else says
        rendered = chat.extend(sampled, action, answer).rendered
    return rendered


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
