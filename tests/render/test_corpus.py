"""What models really write (`corpus.toml`), read by hand and by the parsers."""

from __future__ import annotations

import json
from typing import Any

import pytest

from agentrl.messages import dump
from agentrl.render.parsers import PARSERS
from tests.render.parsing import CORPUS


def test_the_corpus_is_large_and_knows_every_family():
    assert len(CORPUS) >= 60
    assert {case["family"] for case in CORPUS} == set(PARSERS)


@pytest.mark.parametrize("case", CORPUS, ids=[f"{case['family']}: {case['about']}" for case in CORPUS])
def test_it_is_read_as_it_was_meant(case: dict[str, Any]):
    parser = PARSERS[case["family"]]()
    message = parser.parse(case["text"])
    assert message.content == case.get("content", "")
    assert message.thinking == case.get("thinking")
    wanted = case.get("calls", [])
    assert len(message.tool_calls) == len(wanted)
    for call, (name, told, *call_id) in zip(message.tool_calls, wanted, strict=True):
        if name == "error":
            assert call.error is not None
            assert told in call.error
            assert "Wanted: " in call.error
            assert call.arguments == {}
        else:
            assert (call.name, call.arguments, call.error) == (name, json.loads(told), None)
            assert [call.id] == call_id or not call_id
    json.dumps(dump([message]), ensure_ascii=False).encode()
