"""One episode's chat, rendered as it grows: each call gives only the ids that the environment adds.

What comes in: the opening messages; then what was sampled, what was read in it and what the environment answered. What
goes out: ids, and how they came about. Sampled ids are never changed. Knows no environment and no engine.

How the prompt of a turn came about, the stream being all ids of the segment up to where the policy speaks:

* `exact`: the stream is, token for token, what the template renders of all messages.
* `bridged`: the template shows the same messages, but spells what the policy sampled otherwise: other blanks, JSON
  or tokens for the same words; or it has no way to write it, such as a call that cannot be read.
* `kept`: the template would rewrite what stood before, and the stream goes on as it is: by choice (`history =
  "append"`), or because the template has no way to write an earlier action.
* `forked`: the template rewrote what stood before (thinking of earlier turns is left out, say), so the stream could not
  go on: a new segment begins, its prompt what the template renders of all messages.

A turn after a bridged or kept one of its segment is no better, for the stream still holds that text.

What the template does to what stood before is known from `rules.py`, by the shapes of the messages. So the cost of a
turn depends on its own text alone, however long the chat is; only a fork renders the whole chat.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from agentrl.errors import ConfigError
from agentrl.messages import AssistantMessage, Message
from agentrl.render.rules import Rule
from agentrl.render.skeleton import Said, Skeleton, roles
from agentrl.trajectory import IntArray, Rendered

if TYPE_CHECKING:
    from agentrl.render.renderer import Renderer

History = Literal["template", "append"]


@dataclass(frozen=True, slots=True)
class Extension:
    """How the stream goes on after an answer."""

    token_ids: IntArray  # [E] to append; or, forked, the whole prompt of a new segment
    rendered: Rendered


class Chat:
    """Made by `Renderer.begin`."""

    def __init__(
        self, renderer: Renderer, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]], history: History
    ) -> None:
        self._renderer, self._tools, self._history = renderer, tools, history
        self._messages = renderer.as_written(messages)
        self._skeleton = Skeleton.of(self._messages, renderer.template.tags)
        self._shown = bool(tools) and renderer.template.no_tools is None
        self._state: Rendered = "exact"
        self.prompt: IntArray = renderer.prompt(self._messages, tools)  # [P] of the first turn

    def extend(self, sampled: IntArray, action: AssistantMessage, answer: Sequence[Message]) -> Extension:
        """How the stream goes on, ending where the policy speaks again.

        Args:
            sampled: The ids of the action as sampled, with the stop token if there is one. [C]
            action: What was read in them.
            answer: What the environment said to it, and nothing older.

        Raises:
            ConfigError: the template does not show messages of the answer's roles there.
        """
        renderer = self._renderer
        written = renderer.as_written([action])[0]
        assert isinstance(written, AssistantMessage)
        action, answer = written, renderer.as_written(answer)
        said, answered = Said.of(action, renderer.template.tags), roles(answer)
        skeleton = self._skeleton
        rule = renderer.template.rule(skeleton, self._shown, said, answered)
        self._messages += [written, *answer]
        self._skeleton = self._skeleton.after(
            renderer.template.plainest(said) if rule.event == "unsaid" else said, answered
        )
        if rule.event == "appended":
            extension = self._appended(rule, sampled, action, answer)
            if extension is None:  # a template may write what changes by itself, such as the date
                anew = renderer.template.rule(skeleton, self._shown, said, answered, anew=True)
                if anew.event == "appended" and anew != rule:
                    extension = self._appended(anew, sampled, action, answer)
            if extension is not None:
                return extension
        if rule.event == "unsaid":
            return self._kept("bridged", sampled, action, answer)
        if self._history == "append":
            return self._kept("kept", sampled, action, answer)
        return self._forked(sampled, action, answer)

    def _appended(
        self, rule: Rule, sampled: IntArray, action: AssistantMessage, answer: list[Message]
    ) -> Extension | None:
        """Go on by the rule; None where the words of this action make the template rewrite after all."""
        try:
            ids = self._renderer.continued(rule, self._shown, [action, *answer])
        except ConfigError:  # it writes such actions, but not with these words
            return self._kept("bridged", sampled, action, answer)
        if ids is None or rule.cue is None:
            return None if ids is None else self._kept("bridged", sampled, action, answer)
        cue = self._renderer.cue(rule.cue)
        end = self._renderer.end_id(action)
        try:
            at = ids.index(end, len(cue) - cue[::-1].index(end) if end in cue else 0)
        except ValueError:
            return self._kept("bridged", sampled, action, answer)
        body: list[int] = sampled.tolist()
        stopped = bool(body) and body[-1] in (end, self._renderer.stop_id(action))
        same = ids[: at + 1] == [*cue, *body, *([] if stopped else [end])]
        return self._extension("exact" if same else "bridged", ids[at + (1 if stopped else 0) :])

    def _kept(self, state: Rendered, sampled: IntArray, action: AssistantMessage, answer: list[Message]) -> Extension:
        """Go on from the stream as it is, by what the template writes after a plain action."""
        ids = self._renderer.tail(Said.of(action), self._tools if self._shown else (), answer)
        stopped = len(sampled) and sampled[-1] in (self._renderer.end_id(action), self._renderer.stop_id(action))
        return self._extension(state, ids if stopped else [self._renderer.end_id(action), *ids])

    def _extension(self, state: Rendered, ids: list[int]) -> Extension:
        if _WORSE.index(state) > _WORSE.index(self._state):
            self._state = state
        return Extension(np.array(ids, dtype=np.int64), self._state)

    def _forked(self, sampled: IntArray, action: AssistantMessage, answer: list[Message]) -> Extension:
        try:
            prompt = self._renderer.prompt(self._messages, self._tools)
        except ConfigError:  # an earlier action cannot be written by the template
            return self._kept("kept", sampled, action, answer)
        self._state = "exact"
        return Extension(prompt, "forked")


_WORSE: tuple[Rendered, ...] = ("exact", "bridged", "kept")
