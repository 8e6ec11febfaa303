"""What goes over the wire: no answer, however garbled, gives a token a log-probability or a version it did not have."""

from __future__ import annotations

import copy
import json
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentrl.engine.base import Sampling
from agentrl.engine.server.answer import BadAnswer, generate_body, read_answer
from agentrl.engine.server.server import read_gauges
from tests.engine.server_world import METRICS, good_answer, request

FREE = Sampling(max_tokens=8, stop_ids=())
BODY = generate_body(request(max_tokens=8), request_id="e/1", max_tokens=8, weights="4")


def test_the_body_asks_for_what_was_sampled_and_salts_the_cache_with_the_version() -> None:
    body = generate_body(
        request(temperature=0.7, stop_ids=(3, 4), seed=2**63 + 5), request_id="x", max_tokens=3, weights="run-9"
    )
    assert body["cache_salt"] == "run-9"
    assert body["token_ids"] == [0, 1, 2, 3, 4]
    sampling = body["sampling_params"]
    assert (sampling["temperature"], sampling["stop_token_ids"], sampling["seed"]) == (0.7, [3, 4], 5)
    assert (sampling["logprobs"], sampling["ignore_eos"], sampling["max_tokens"]) == (0, True, 3)
    json.dumps(body)  # numpy's integers would not go over


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 4)), min_size=1, max_size=5))
def test_spans_that_cover_every_token_label_it(parts: list[tuple[int, int]]) -> None:
    labels = [version for version, length in parts for _ in range(length)]
    ends = np.cumsum([0, *(length for _, length in parts)]).tolist()
    answer = good_answer(BODY, "0", n=len(labels))
    answer["choices"][0]["weight_versions"] = [
        {"version": str(version), "start": start, "end": end}
        for (version, _), (start, end) in zip(parts, pairwise(ends), strict=True)
    ]
    sampling = Sampling(max_tokens=len(labels), stop_ids=())
    read = read_answer(answer, sampling, max_tokens=len(labels), weights={str(v): v for v in range(4)}).completion
    assert read.versions.tolist() == labels
    if len({version for version, _ in parts}) > 1:
        with pytest.raises(BadAnswer, match="which it was not given"):
            read_answer(answer, sampling, max_tokens=len(labels), weights={str(parts[0][0]): parts[0][0]})


spans = st.lists(
    st.fixed_dictionaries(
        {
            "version": st.sampled_from(["0", "4", "default", "-1", ""]),
            "start": st.integers(-1, 9),
            "end": st.integers(-1, 9),
        }
    ),
    max_size=4,
)


@given(spans)
def test_spans_are_taken_where_they_say_one_version_of_each_token(drawn: list[dict[str, Any]]) -> None:
    said: list[list[str]] = [[] for _ in range(8)]
    for span in drawn:
        for at in range(max(0, span["start"]), min(8, span["end"])):
            said[at].append(span["version"])
    answer = good_answer(BODY, "0")
    answer["choices"][0]["weight_versions"] = drawn
    try:
        read = read_answer(answer, FREE, max_tokens=8, weights={"0": 0, "4": 4}).completion
    except BadAnswer:
        return
    assert [[str(v)] for v in read.versions.tolist()] == said


leaves = st.none() | st.booleans() | st.integers(-2, 12) | st.floats() | st.text(max_size=3) | st.just([]) | st.just({})


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, below in inner for place in places(below, (*path, key)))]


@given(st.data())
def test_a_garbled_answer_is_refused_or_says_what_it_says(data: st.DataObject) -> None:
    answer = good_answer(BODY, "4")
    for _ in range(data.draw(st.integers(1, 3))):
        path = data.draw(st.sampled_from(places(answer)))
        garbled = data.draw(leaves)
        if not path:
            answer = garbled
            break
        answer = copy.deepcopy(answer)
        holder = answer
        for key in path[:-1]:
            holder = holder[key]
        if data.draw(st.booleans()):
            del holder[path[-1]]
        else:
            holder[path[-1]] = garbled
        if not isinstance(answer, dict):
            break
    try:
        read = read_answer(answer, FREE, max_tokens=8, weights={"4": 4}).completion
    except BadAnswer:
        return
    choice = answer["choices"][0]
    assert read.token_ids.tolist() == choice["token_ids"]
    entries = choice["logprobs"]["content"] or []
    assert read.logprobs.tolist() == [np.float32(entry["logprob"]) for entry in entries]
    assert set(read.versions.tolist()) <= {4}
    assert np.isfinite(read.logprobs).all()


def test_gauges_are_the_sum_or_the_fullest_of_a_servers_engines() -> None:
    two = METRICS + METRICS.replace("0.25", "0.75").replace('engine="0"', 'engine="1"')
    assert read_gauges(METRICS) == {"kv_usage": 0.25, "running": 2.0, "waiting": 1.0}
    assert read_gauges(two) == {"kv_usage": 0.75, "running": 4.0, "waiting": 2.0}
    assert read_gauges("<html>") == {}
