from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentrl.errors import ConfigError
from agentrl.messages import AssistantMessage, ToolCall, ToolMessage, UserMessage, to_dicts
from agentrl.render import ByteTokenizer, HermesParser, HFTokenizer, Renderer
from agentrl.render.chat import History
from agentrl.render.parsers import make_parser
from tests.render.chats import SCHEMA, SPECIAL, actions, episodes, harmless, hostile

FAMILIES = ("byte", "tiny", "qwen25", "qwen3")
CHATML = ("byte", "tiny")
HELLO = UserMessage(content="Hello.")
CALL = AssistantMessage(tool_calls=(ToolCall(id="call_0", name="calculator", arguments={"expression": "2+3"}),))
QWEN3 = (Path(__file__).parent / "templates" / "qwen3.jinja").read_text()


def grow(renderer: Renderer, opening: list, turns: list, schemas: list, history: History = "append") -> list[int]:
    chat = renderer.begin(opening, schemas, history)
    ids = chat.prompt.tolist()
    for action, answer in turns:
        sampled = renderer.encode_action(action)
        ids += [*sampled.tolist(), *chat.extend(sampled, action, answer).token_ids.tolist()]
    return ids


def extend(renderer: Renderer, answer: list, *, stopped: bool = True, action: AssistantMessage = CALL) -> np.ndarray:
    sampled = renderer.encode_action(action)
    return renderer.begin([HELLO], [SCHEMA]).extend(sampled if stopped else sampled[:-1], action, answer).token_ids


def flat(opening: list, turns: list) -> list:
    return [*opening, *(message for action, answer in turns for message in (action, *answer))]


@pytest.mark.parametrize("family", FAMILIES)
@settings(max_examples=60, deadline=None)
@given(episode=episodes(hostile | harmless), schemas=st.sampled_from([[], [SCHEMA]]))
def test_turn_by_turn_equals_the_whole_chat(renderers, family, episode, schemas):
    renderer = renderers[family]
    opening, turns = episode
    assert grow(renderer, opening, turns, schemas) == renderer.prompt(flat(opening, turns), schemas).tolist()


@pytest.mark.parametrize("family", CHATML)
@settings(max_examples=60, deadline=None)
@given(episode=episodes(harmless, thinking=True), schemas=st.sampled_from([[], [SCHEMA]]))
def test_harmless_chats_are_the_template_encoded_in_one_go(renderers, family, episode, schemas):
    renderer = renderers[family]
    opening, turns = episode
    text = renderer.tokenizer.chat(to_dicts(flat(opening, turns)), schemas or None, True)
    assert grow(renderer, opening, turns, schemas) == renderer.tokenizer.encode(text)


@pytest.mark.parametrize("family", FAMILIES)
@settings(max_examples=60, deadline=None)
@given(episode=episodes(hostile), data=st.data())
def test_content_never_becomes_a_special_token(renderers, family, episode, data):
    renderer = renderers[family]
    opening, turns = episode
    schema = {"type": "function", "function": {"name": "f", "description": data.draw(hostile), "parameters": {}}}
    harmless_schema = {"type": "function", "function": {"name": "f", "description": "x", "parameters": {}}}
    special = set(renderer.tokenizer.special_ids.values())

    def disarm(message):
        if not isinstance(message, AssistantMessage):
            return message.model_copy(update={"content": "x" if message.content else ""})
        calls = tuple(call.model_copy(update={"arguments": {}}) for call in message.tool_calls)
        return message.model_copy(update={"content": "x" if message.content else "", "tool_calls": calls})

    calm_opening = [disarm(m) for m in opening]
    calm_turns = [(disarm(a), [disarm(m) for m in answer]) for a, answer in turns]
    got = [i for i in grow(renderer, opening, turns, [schema]) if i in special]
    wanted = [i for i in grow(renderer, calm_opening, calm_turns, [harmless_schema]) if i in special]
    assert got == wanted


@pytest.mark.parametrize("family", CHATML)
@settings(max_examples=60, deadline=None)
@given(episode=episodes(hostile, thinking=True))
def test_hostile_content_still_spells_the_same_text(renderers, family, episode):
    renderer = renderers[family]
    messages = flat(*episode)
    ids = renderer.prompt(messages, [SCHEMA]).tolist()
    assert renderer.tokenizer.decode(ids) == renderer.tokenizer.chat(to_dicts(messages), [SCHEMA], True)


@pytest.mark.parametrize("string", SPECIAL)
@pytest.mark.parametrize("family", FAMILIES)
def test_each_special_string_in_a_tool_result_is_ordinary_text(renderers, family, string):
    renderer = renderers[family]
    calm, ids = (extend(renderer, [ToolMessage(content=c)]).tolist() for c in ("x", f"a{string}b"))
    special = set(renderer.tokenizer.special_ids.values())
    assert [i for i in ids if i in special] == [i for i in calm if i in special]
    assert f"a{string}b" in renderer.tokenizer.decode(ids)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_bridge_begins_after_the_end_of_turn(renderers, family):
    renderer = renderers[family]
    ids = extend(renderer, [ToolMessage(content="5"), ToolMessage(content="6")])
    assert renderer.tokenizer.decode(ids.tolist()) == (
        "\n<|im_start|>user\n<tool_response>\n5\n</tool_response>\n<tool_response>\n6\n</tool_response><|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    assert ids.dtype == np.int64
    cut = extend(renderer, [ToolMessage(content="5"), ToolMessage(content="6")], stopped=False)
    assert cut.tolist() == [renderer.stop_ids[0], *ids.tolist()]


@pytest.mark.parametrize("family", FAMILIES)
def test_no_new_messages_still_hands_the_turn_back(renderers, family):
    renderer = renderers[family]
    ids = extend(renderer, []).tolist()
    assert renderer.tokenizer.decode(ids) == "\n<|im_start|>assistant\n"


@pytest.mark.parametrize("family", FAMILIES)
@settings(max_examples=60, deadline=None)
@given(action=actions(harmless.map(str.strip), thinking=True))
def test_actions_are_read_back(renderers, family, action):
    renderer = renderers[family]
    ids = renderer.encode_action(action)
    assert ids[-1] == renderer.stop_ids[0]
    assert renderer.parse(ids) == action
    assert renderer.parse(ids[:-1]) == action


def test_only_the_last_stop_token_is_taken_off(renderers):
    renderer = renderers["byte"]
    end = renderer.stop_ids[0]
    assert renderer.parse([104, end, 105, end]).content == "h<|im_end|>i"
    assert renderer.parse([]) == AssistantMessage()


@settings(max_examples=100, deadline=None)
@given(ids=st.lists(st.integers(0, 600)))
def test_any_sampled_ids_can_be_read(renderers, ids):
    for family in CHATML:
        assert isinstance(renderers[family].parse(np.array(ids, dtype=np.int64)), AssistantMessage)


def test_lone_surrogates_in_tool_results_are_replaced(renderers):
    for family in FAMILIES:
        ids = extend(renderers[family], [ToolMessage(content="a\ud800b")]).tolist()
        assert "a?b" in renderers[family].tokenizer.decode(ids)


def test_thinking_that_the_template_would_drop_stays_in_the_stream(renderers):
    renderer = renderers["qwen3"]
    thought = CALL.model_copy(update={"thinking": "add them"})
    opening, follow = [UserMessage(content="2+3?")], [UserMessage(content="And 4+5?")]
    grown = renderer.tokenizer.decode(grow(renderer, opening, [(thought, follow)], []))
    whole = renderer.tokenizer.decode(renderer.prompt([*opening, thought, *follow]).tolist())
    assert "<think>\nadd them\n</think>\n\n<tool_call>" in grown
    assert "add them" not in whole
    loop = [ToolMessage(content="5")]  # no new query: the template keeps the thinking, and both agree
    assert grow(renderer, opening, [(thought, loop)], []) == renderer.prompt([*opening, thought, *loop]).tolist()


def test_stop_ids_hold_the_end_of_turn_first(renderers):
    for renderer in renderers.values():
        assert renderer.stop_ids == (renderer.tokenizer.special_ids["<|im_end|>"],)


CONTENT = "message.content if message.content is string else ''"
RESULT = "'\\n<tool_response>\\n' + content"
REFUSED = {  # what the template does: (text of the template, its replacement, words of the error)
    "ends in plain text": ("<|im_end|>", "END", "not with a special token"),
    "undoes the cuts": (CONTENT, "message.content | replace('zqcut0qz', '')", "lets special tokens in"),
    "forgets long ago": (RESULT, f"{RESULT} * (loop.index0 > messages|length - 20)", "by how many there are"),
    "shows no user": ('message.role == "user" or (', "false or (", "does not show a user's message"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_templates_that_cannot_be_followed_are_refused(with_template: Callable[[str], HFTokenizer], what: str):
    old, new, reason = REFUSED[what]
    assert old in QWEN3
    with pytest.raises(ConfigError, match=reason):
        Renderer(with_template(QWEN3.replace(old, new)), HermesParser())


WITHOUT_TOOLS = {
    "other call format": ('<tool_call>\\n{"name": "', '<tool_call>\\n{"tool": "', "otherwise than HermesParser"),
    "refuses tools": ("{{- '<|im_start|>user' }}", "{{- raise_exception('no tools here') }}", "no tools here"),
    "drops results": (RESULT, "''", "does not show tool results"),
    "drops calls": ("message.tool_calls or []", "[]", "does not show tool calls"),
}


@pytest.mark.parametrize("what", WITHOUT_TOOLS)
def test_without_tools_a_template_need_not_show_them(with_template: Callable[[str], HFTokenizer], what: str):
    old, new, reason = WITHOUT_TOOLS[what]
    assert old in QWEN3
    renderer = Renderer(with_template(QWEN3.replace(old, new)), HermesParser())
    with pytest.raises(ConfigError, match=reason):
        renderer.begin([HELLO], [SCHEMA])
    chat, said = renderer.begin([HELLO]), AssistantMessage(content="Hi.")
    assert chat.extend(renderer.encode_action(said), said, [HELLO]).rendered == "exact"
    assert chat.extend(renderer.encode_action(CALL), CALL, [HELLO]).rendered in ("exact", "bridged")  # it calls anyway


FORKING = {  # and at which of four turns
    "counts messages": ("'<|im_start|>' + message.role", "messages|length ~ message.role", [0, 1, 2, 3]),
    "forgets old results": (RESULT, f"{RESULT} * (loop.index0 > messages|length - 3)", [1, 2, 3]),
    "is append-only": ("zq", "zq", []),
}


@pytest.mark.parametrize("what", FORKING)
def test_rewritten_history_begins_a_new_segment(with_template: Callable[[str], HFTokenizer], what: str):
    old, new, forks = FORKING[what]
    renderer = Renderer(with_template(QWEN3.replace(old, new)), HermesParser())
    chat, messages, seen = renderer.begin([HELLO], [SCHEMA]), [HELLO], []
    for _ in range(4):
        messages += [CALL, ToolMessage(content="5")]
        extension = chat.extend(renderer.encode_action(CALL), *_split(messages))
        seen.append(extension.rendered)
        if extension.rendered == "forked":
            assert extension.token_ids.tolist() == renderer.prompt(messages, [SCHEMA]).tolist()
    assert [i for i, how in enumerate(seen) if how == "forked"] == forks
    assert set(seen) <= {"forked", "exact"}


def _split(messages: list) -> tuple[AssistantMessage, list]:
    return messages[-2], messages[-1:]


def test_thinking_that_the_template_strips_forks_where_it_strips_it(renderers):
    """Qwen3 drops thinking before the last user's message: within one question the stream grows on."""
    renderer = renderers["qwen3"]
    thought = CALL.model_copy(update={"thinking": "add them"})
    done = AssistantMessage(content="5", thinking="say so")
    chat = renderer.begin([HELLO], [SCHEMA])
    answers = [(thought, [ToolMessage(content="5")]), (thought, [ToolMessage(content="6")]), (done, [HELLO])]
    plain = AssistantMessage(content="Bye."), [HELLO]
    seen = [chat.extend(renderer.encode_action(a), a, e).rendered for a, e in (*answers, plain)]
    assert seen == ["exact", "exact", "forked", "exact"]
    kept = renderer.begin([HELLO], [SCHEMA], "append")
    assert [kept.extend(renderer.encode_action(a), a, e).rendered for a, e in (*answers, plain)] == [
        *("exact", "exact", "kept"),
        "kept",  # the stream still holds what the template would not show
    ]


def test_a_template_that_opens_thinking(with_template: Callable[[str], HFTokenizer]):
    opening = "{{- '<|im_start|>assistant\\n' }}"
    assert opening in QWEN3
    renderer = Renderer(
        with_template(QWEN3.replace(opening, opening.replace("\\n'", "\\n<think>\\n'"))), HermesParser()
    )
    thought = CALL.model_copy(update={"thinking": "add them"})
    ids = renderer.encode_action(thought)
    assert renderer.tokenizer.decode(ids.tolist()).startswith("add them\n</think>")
    assert renderer.parse(ids) == thought
    chat = renderer.begin([HELLO], [SCHEMA])
    assert renderer.tokenizer.decode(chat.prompt.tolist()).endswith("assistant\n<think>\n")
    assert chat.extend(ids, thought, [ToolMessage(content="5")]).rendered == "exact"
    assert chat.extend(renderer.encode_action(CALL), CALL, [ToolMessage(content="5")]).rendered == "bridged"


def test_what_is_spelt_otherwise_is_bridged_and_stays_so(renderers):
    renderer = renderers["tiny"]
    chat = renderer.begin([HELLO], [SCHEMA])
    text = '<tool_call>{"name":"calculator","arguments":{"expression":"2+3"}}</tool_call><|im_end|>'
    sampled = np.array(renderer.tokenizer.encode(text))
    assert renderer.parse(sampled) == CALL
    first = chat.extend(sampled, CALL, [ToolMessage(content="5")])
    assert first.rendered == "bridged"
    assert first.token_ids.tolist() == extend(renderer, [ToolMessage(content="5")]).tolist()
    assert chat.extend(renderer.encode_action(CALL), CALL, [ToolMessage(content="5")]).rendered == "bridged"


def test_code_blocks_are_given_to_the_template_as_content(renderers):
    renderer = Renderer(renderers["qwen25"].tokenizer, make_parser("python_block"))
    sampled = np.array(renderer.tokenizer.encode("```python\nprint(5)\n```<|im_end|>"))
    action = renderer.parse(sampled)
    assert action.tool_calls[0].arguments == {"code": "print(5)"}
    assert renderer.begin([HELLO], [SCHEMA]).extend(sampled, action, [ToolMessage(content="5")]).rendered == "exact"


def test_templates_that_trim_content_can_be_used(with_template: Callable[[str], HFTokenizer]):
    trimming = QWEN3.replace("set content = message.content if", "set content = message.content | trim if")
    renderer = Renderer(with_template(trimming), HermesParser())
    ids = extend(renderer, [ToolMessage(content="  <|im_end|> 5 \n")]).tolist()
    assert "<tool_response>\n<|im_end|> 5\n</tool_response>" in renderer.tokenizer.decode(ids)
    assert ids.count(renderer.stop_ids[0]) == 1


def test_the_cost_of_extending_does_not_depend_on_the_history():
    class Counting(ByteTokenizer):
        messages = 0

        def chat(self, messages, tools, add_generation_prompt):
            self.messages += len(messages)
            return super().chat(messages, tools, add_generation_prompt)

    tokenizer = Counting()
    renderer = Renderer(tokenizer, HermesParser())
    chat = renderer.begin([UserMessage(content="hi")] * 500, [SCHEMA])
    sampled, counts = renderer.encode_action(CALL), []
    for _ in range(200):
        tokenizer.messages = 0
        assert chat.extend(sampled, CALL, [ToolMessage(content="5")]).rendered == "exact"
        counts.append(tokenizer.messages)
    assert max(counts[4:]) <= 5


def test_tools_that_move_to_the_last_question_are_the_real_ones(with_template: Callable[[str], HFTokenizer]):
    old = "{{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>' + '\\n' }}"
    assert old in QWEN3
    renderer = Renderer(
        with_template(QWEN3.replace(old, f"{{{{- tools | tojson if tools and loop.last }}}}{old}")), HermesParser()
    )
    said = AssistantMessage(content="5")
    for history in ("template", "append"):
        chat = renderer.begin([HELLO], [SCHEMA], history)
        extension = chat.extend(renderer.encode_action(said), said, [HELLO])
        assert extension.rendered == ("forked" if history == "template" else "kept")
        assert "Evaluate an expression." in renderer.tokenizer.decode(extension.token_ids.tolist())
