"""GSM8K: the real problems solved by gold play, the score, the marks, and broken data files."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import pytest

from agentrl.env import check_env
from agentrl.envs.gsm8k import GSM8K, final_number, gold_turns, reproduces
from agentrl.errors import DataError
from agentrl.messages import AssistantMessage, ToolCall, ToolMessage

SOLUTION = (
    "She sells 16 - 3 = <<16-3=13>>13 eggs.\nThat is fine.\nSo $<<13*2=26>>26 and $<<26/4=6.5>>6.50.\nDone.\n#### 26"
)


def write(folder: Path, *lines: str, name: str = "test.jsonl") -> GSM8K:
    (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return GSM8K(data=str(folder))


def row(answer: str, question: str = "How many?") -> str:
    return json.dumps({"question": question, "answer": answer})


async def test_gold_play_solves_every_test_problem(real_data: Path, play) -> None:
    env = GSM8K()
    tasks = env.tasks("test")
    assert len(tasks) == 1319
    solved, marks, reproduced, errors = 0, 0, 0, 0
    for task in tasks:
        played = await play(env, task, env.oracle)
        solved += played.reward == 1.0 and played.terminated
        marks += played.metrics["gold_marks"]
        reproduced += played.metrics["gold_marks_reproduced"]
        errors += played.metrics["tool_errors"]
    assert (solved, marks, reproduced, errors) == (1319, 4282, 4282, 0)


@pytest.mark.parametrize(("split", "n_marks"), [("train", 23716), ("test", 4282)])
def test_every_real_mark_is_found_and_none_is_at_fault(split: str, n_marks: int, real_data: Path) -> None:
    env = GSM8K()
    raw = (real_data / "gsm8k" / f"{split}.jsonl").read_text(encoding="utf-8")
    assert raw.count("<<") == n_marks
    assert sum(len(task.data["marks"]) for task in env.tasks(split)) == n_marks
    assert env.data_faults(split) == []


def test_the_turn_limit_holds_the_longest_real_solution(real_data: Path) -> None:
    env = GSM8K()
    solutions = [task.data["solution"] for split in ("train", "test") for task in env.tasks(split)]
    assert max(len(gold_turns(solution)) for solution in solutions) == 10 <= env.max_turns


def test_gold_turns_say_all_of_the_solution_and_no_mark(real_data: Path) -> None:
    for task in GSM8K().tasks("test"):
        turns = gold_turns(task.data["solution"])
        said = "".join("".join(turn.content.split()) for turn in turns)
        want = task.data["solution"]
        for expression, shown in task.data["marks"]:
            want = want.replace(f"<<{expression}={shown}>>", "", 1)
        assert said == "".join(want.split())
        called = [call.arguments["expression"] for turn in turns for call in turn.tool_calls]
        assert called == [expression for expression, _ in task.data["marks"]]


async def test_null_play_scores_zero_on_real_problems(real_data: Path, play) -> None:
    env = GSM8K()
    for task in env.tasks("test")[:50]:
        played = await play(env, task, lambda task, messages: AssistantMessage())
        assert (played.reward, played.terminated, played.metrics["gold_marks_reproduced"]) == (0.0, True, 0)


def test_it_keeps_the_contract(real_data: Path) -> None:
    assert [result for result in check_env("gsm8k") if not result.passed] == []


def test_gold_turns_by_hand() -> None:
    first, second, last = gold_turns(SOLUTION)
    assert first.content == "She sells 16 - 3 ="
    assert [call.arguments for call in first.tool_calls] == [{"expression": "16-3"}]
    assert second.content == "13 eggs.\nThat is fine.\nSo $"
    assert [call.arguments["expression"] for call in second.tool_calls] == ["13*2", "26/4"]
    assert len({call.id for call in first.tool_calls + second.tool_calls}) == 3
    assert last == AssistantMessage(content="26 and $6.50.\nDone.\n#### 26")


async def test_an_episode_by_hand(tmp_path: Path, play) -> None:
    env = write(tmp_path, row(SOLUTION, "How much?"))
    played = await play(env, env.tasks("test")[0], env.oracle)
    assert [m.content for m in played.messages if isinstance(m, ToolMessage)] == ["13", "26", "6.5"]
    assert played.messages[1].content == "How much?"
    assert (played.reward, played.turns) == (1.0, 3)
    assert (played.metrics["gold_marks"], played.metrics["gold_marks_reproduced"]) == (3, 3)


async def test_marks_are_counted_over_the_turns_of_this_episode(tmp_path: Path, play) -> None:
    env = write(tmp_path, row(SOLUTION))
    task = env.tasks("test")[0]
    said = [
        AssistantMessage(tool_calls=(ToolCall(id="1", name="calculator", arguments={"expression": "6+7"}),)),
        AssistantMessage(tool_calls=(ToolCall(id="2", name="calculator", arguments={"expression": "1/0"}),)),
        AssistantMessage(content="#### 13"),
    ]
    played = await play(env, task, lambda task, messages: said[sum(m.role == "assistant" for m in messages)])
    assert (played.reward, played.metrics["gold_marks_reproduced"], played.metrics["tool_errors"]) == (0.0, 1, 1)
    played = await play(env, task, lambda task, messages: said[-1])
    assert (played.metrics["gold_marks"], played.metrics["gold_marks_reproduced"]) == (3, 0)


async def test_an_answer_that_a_limit_cut_is_no_answer(tmp_path: Path) -> None:
    env = write(tmp_path, row(SOLUTION))
    await env.reset(options={"task": env.tasks("test")[0]})
    assert await env.conclude(AssistantMessage(content="#### 26")) == {"correct": 0.0}


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("so\n#### 18", 18),
        ("#### 1,234,567", 1234567),
        ("####$-3.50", Fraction(-7, 2)),
        ("#### -$3", -3),
        ("#### $18.", 18),
        ("#### 20%", 20),
        ("#### 18 dollars", 18),
        ("#### .5", Fraction(1, 2)),
        ("####\n18\nthat is it 4", 18),
        ("#### 3\n#### 4", 4),
        ("\\boxed{3} #### 4", 4),
        ("so \\boxed{3} and \\boxed{1,000}", 1000),
        ("#### 3/4", None),
        ("#### 3 or 4", None),
        ("#### 1,2", None),
        ("#### 12,34", None),
        ("#### about 4", None),
        ("#### 1e3", None),
        ("####", None),
        ("\\boxed{3} ####", None),
        ("\\boxed{x=3}", None),
        ("the answer is 18", None),
        ("18", None),
        ("", None),
    ],
)
def test_final_number(text: str, number: Fraction | int | None) -> None:
    assert final_number(text) == number


@pytest.mark.parametrize(
    ("got", "shown", "same"),
    [
        ("24", "24", True),
        ("24", "24.00", True),
        ("0.75", "3/4", True),
        ("0.3333333333", "0.33", True),
        ("0.6666666667", "0.67", True),
        ("0.25", ".3", True),
        ("0.25", ".2", True),
        ("0.6666666667", "0.66", False),
        ("0.26", "0.2", False),
        ("33.33333333", "33", False),
        ("24", "25", False),
        ("24", "-24", False),
        ("Error: division by zero", "0", False),
        ("24", "", False),
    ],
)
def test_a_mark_is_reproduced_within_the_decimals_it_shows(got: str, shown: str, same: bool) -> None:
    assert reproduces(got, shown) is same


def test_faults_of_the_data_are_listed(tmp_path: Path) -> None:
    env = write(
        tmp_path,
        row("a <<1+1=2>>2\n#### 2"),
        row("b <<1+1=3>>3 and <<1/3=0.33>>\n#### 3"),
        row("c <<1/0=0>>0 and <<7>>7 and <<2 apples=2>>\n#### 0"),
    )
    faults = env.data_faults("test")
    assert faults[0] == "gsm8k test problem 1: <<1+1=3>>, but the calculator gives 2"
    assert [fault.partition(":")[0][-1] for fault in faults] == ["1", "2", "2", "2"]
    assert "division by zero" in faults[1]


def test_without_data_it_says_what_to_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("AGENTRL_DATA", raising=False)
    with pytest.raises(DataError, match="set the environment variable AGENTRL_DATA"):
        GSM8K().tasks("test")
    monkeypatch.setenv("AGENTRL_DATA", str(tmp_path))
    with pytest.raises(DataError, match="AGENTRL_DATA") as caught:
        GSM8K().tasks("train")
    assert str(tmp_path / "gsm8k" / "train.jsonl") in str(caught.value)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"question": "a", ', "JSON"),
        ("", "JSON"),
        ('["question", "answer"]', "question and answer"),
        ('{"question": "a"}', "'answer'"),
        ('{"question": "a", "answer": 5}', "question and answer"),
        ('{"question": 5, "answer": "#### 5"}', "not a text"),
        ('{"question": "a", "answer": "it is 5"}', "####"),
    ],
)
def test_a_broken_line_is_named(line: str, reason: str, tmp_path: Path) -> None:
    env = write(tmp_path, row("#### 1"), row("#### 2"), line, row("#### 4"))
    with pytest.raises(DataError, match=reason) as caught:
        env.tasks("test")
    assert f"{tmp_path / 'test.jsonl'}:3" in str(caught.value)


def test_an_unknown_split_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"'dev'.*train, test"):
        write(tmp_path, row("#### 1")).tasks("dev")


def test_line_separators_inside_a_text_do_not_end_the_line(tmp_path: Path) -> None:
    line = json.dumps({"question": "a\u2028b", "answer": "#### 1"}, ensure_ascii=False)
    assert [task.prompt for task in write(tmp_path, line).tasks("test")] == ["a\u2028b"]
