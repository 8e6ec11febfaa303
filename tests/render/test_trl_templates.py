"""Every chat template that TRL ships: what grows turn by turn is what the template renders of the whole chat."""

from __future__ import annotations

import runpy
from collections import Counter
from functools import cache
from pathlib import Path
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentrl.errors import ConfigError
from agentrl.messages import AssistantMessage, Message, SystemMessage, ToolCall, ToolMessage, UserMessage
from agentrl.render.renderer import Renderer
from agentrl.render.rules import Template
from agentrl.render.skeleton import Said, Skeleton
from agentrl.trajectory import IntArray
from tests.render.chats import SCHEMA
from tests.render.trl_templates import NAMES, PROBLEM, TemplateParser, as_the_template_says, tokenizer

pytestmark = pytest.mark.skipif(PROBLEM is not None, reason=PROBLEM or "")

DOCS = Path(__file__).parent.parent.parent / "docs"
MERGES = (0, 300)  # bytes alone, and a BPE that joins across the seams where the policy begins to speak
WORDS = (
    "\n",
    "\n\n",
    " ",
    "hello",
    "user",
    "assistant",
    '"',
    "'",
    "zq",
    "5",
    "é漢🙂",
    "\\",
    "<",
    "|>",
    "</think>",
    "\r\n",
)


@cache
def renderer(name: str, merges: int) -> Renderer:
    made = tokenizer(name, merges)
    return Renderer(made, TemplateParser(Template(made)))


class Play:
    """Random chats, drawn from one seed."""

    def __init__(self, using: Renderer, rng: Random) -> None:
        self.using, self.rng = using, rng
        self.words = [*WORDS, *list(using.tokenizer.special_ids)[:40]]
        self.tools = using.no_tools is None and rng.random() < 0.75
        self.thinks = rng.random() < 0.5

    def text(self) -> str:
        return "".join(self.rng.choice(self.words) for _ in range(self.rng.randint(1, 5)))

    def opening(self) -> list[Message]:
        system = [SystemMessage(content=self.text())] if self.rng.random() < 0.4 else []
        return [*system, UserMessage(content=self.text())]

    def call(self, i: int) -> ToolCall:
        values = (self.text, lambda: self.rng.randint(-5, 5), lambda: True, lambda: [1, "a"], lambda: {"k": None})
        keys = self.rng.sample(["a", "b", "expression"], self.rng.randint(0, 2))
        return ToolCall(id=f"call_{i}", name="calculator", arguments={k: self.rng.choice(values)() for k in keys})

    def turn(self) -> tuple[AssistantMessage, list[Message]]:
        rng = self.rng
        calls = tuple(self.call(i) for i in range(rng.choice((0, 1, 1, 2, 3)) if self.tools else 0))
        action = AssistantMessage(
            content=self.text() if not calls else f"say{self.text()}" if rng.random() < 0.4 else "",
            thinking=rng.choice((None, "", "mull", f"mull{self.text()}")) if self.thinks else None,
            tool_calls=calls,
        )
        answer: list[Message] = [ToolMessage(content=self.text(), name=c.name, call_id=c.id) for c in calls]
        if not answer or rng.random() < 0.15:
            answer.append(UserMessage(content=self.text()))
        return action, answer

    def sampled(self, action: AssistantMessage, says: IntArray | None) -> IntArray:
        """Ids of an action: the template's own, the parser's, or the same words in other tokens, or ended otherwise."""
        ids = self.using.encode_action(action) if says is None else says
        how = self.rng.choice(("as it is", "as it is", "as it is", "cut", "other end", "other tokens"))
        if how == "cut":
            return ids[:-1]
        if how == "other end":
            return np.append(ids[:-1], self.using.tokenizer.eos_ids[0])
        if how == "other tokens":
            return np.array([i for t in ids.tolist() for i in self.respelt(t)], dtype=np.int64)
        return ids

    def respelt(self, token_id: int) -> list[int]:
        """A token as its characters one by one; special tokens and parts of characters stay."""
        text = self.using.tokenizer.token(token_id)
        if token_id in self.using.tokenizer.special_ids.values() or "\ufffd" in text:
            return [token_id]
        return [i for character in text for i in self.using.tokenizer.encode(character)]


def play(using: Renderer, seed: int) -> Counter[str]:
    """Grow one random chat and compare each turn with the whole; how often each kind came."""
    by = Play(using, Random(seed))
    schemas = [SCHEMA] if by.tools else []
    messages, history, seen = by.opening(), by.rng.choice(("template", "template", "append")), Counter[str]()
    try:
        chat = using.begin(messages, schemas, history)
    except ConfigError:
        return seen  # the template takes no such opening
    stream, state = chat.prompt, "exact"
    for _ in range(by.rng.randint(1, 5)):
        before = using.prompt(messages, schemas)
        action, answer = by.turn()
        messages += [action, *answer]
        try:
            whole = using.prompt(messages, schemas)
        except ConfigError:
            return seen  # nor such a chat: there is nothing to equal
        says = as_the_template_says(using, action, before, whole)
        sampled = by.sampled(action, says)
        extension = chat.extend(sampled, action, answer)
        new, how = extension.token_ids, extension.rendered
        seen[how] += 1
        grown = np.concatenate([stream, sampled, new])
        if how == "forked":
            assert history == "template"
            assert np.array_equal(new, whole)
            needless = sampled is says and state == "exact"
            assert not needless, f"{seed}: the template appends what was sampled, and yet it was forked"
        elif how == "exact":
            assert np.array_equal(grown, whole), f"{seed}: called exact, and is not"
        elif how == "bridged":
            assert np.array_equal(new[1:], whole[len(whole) - len(new) + 1 :]), f"{seed}: not what the template writes"
            same = sampled is says and state == "exact" and using.end_id(action) == using.stop_id(action)
            assert not same or chat_is_unanchored(using), f"{seed}: exact, and not called so"
        else:
            assert history == "append"
        stream, state = (new, "exact") if how == "forked" else (grown, how)
    return seen


def chat_is_unanchored(using: Renderer) -> bool:
    """Whether no special token stands between a message and the policy's turn, so that tokens cannot be compared."""
    return using.template.rule(Skeleton(("user",)), False, Said(content=True), ("user",)).cue is None


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32), merges=st.sampled_from(MERGES))
def test_growing_equals_the_whole_chat(name: str, seed: int, merges: int):
    play(renderer(name, merges), seed)


def test_the_page_of_templates_is_what_the_renderer_does():
    written = runpy.run_path(str(DOCS / "templates.py"))["page"]()
    assert (DOCS / "templates.md").read_text(encoding="utf-8") == written, "run: python docs/templates.py"
