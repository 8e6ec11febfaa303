"""Tasks by split and index: pure, and never shared between train and test."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentrl import Env, Task
from agentrl.env import TaskSource
from agentrl.env.tasks import draw_task, split_of
from agentrl.errors import DataError, EnvDefinitionError
from tests.env.orders import Orders


class Questions(Orders):
    """A data set of seven training tasks, one of them twice."""

    def tasks(self, split: str) -> Sequence[Task]:
        train = [Task(f"question {i}") for i in (0, 1, 2, 3, 4, 5, 5)]
        return {"train": train, "test": [Task("held out")]}.get(split, ())


class Numbers(Orders):
    """Practically endless procedural tasks."""

    def make_task(self, seed: int) -> Task:
        return Task(f"task {random.Random(seed).randrange(10**9)}")


class Few(Orders):
    """Five different tasks."""

    def make_task(self, seed: int) -> Task:
        return Task(f"task {seed % 5}")


@settings(max_examples=50)
@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=20))
def test_procedural_train_and_test_share_no_task(indices: list[int]) -> None:
    env = Orders(size=200)  # few enough that drawn tasks repeat all the time
    train = {TaskSource(env, "train").task(index).id for index in indices}
    test = {TaskSource(env, "test").task(index).id for index in indices}
    assert not train & test


def test_a_task_is_a_pure_function_of_split_and_index() -> None:
    first = [TaskSource(Numbers(), split).task(index) for split in ("train", "test") for index in range(20)]
    again = [TaskSource(Numbers(), split).task(index) for split in ("train", "test") for index in reversed(range(20))]
    assert first[:20] == again[:20][::-1]
    assert first[20:] == again[20:][::-1]
    assert len({task.id for task in first}) == 40


def test_the_stream_is_fixed_for_good() -> None:
    """Held-out results of different versions are comparable only while these stay as they are."""
    assert [TaskSource(Numbers(), split).task(0).prompt for split in ("train", "test")] == [
        "task 743117520",
        "task 879753200",
    ]


def test_one_task_in_ten_is_held_out() -> None:
    held_out = sum(split_of(Task(f"task {i}")) == "test" for i in range(10_000))
    assert 800 < held_out < 1200


def test_seeds_fit_every_random_generator() -> None:
    seeds: list[int] = []

    class Spy(Orders):
        def make_task(self, seed: int) -> Task:
            seeds.append(seed)
            return Task(str(seed))

    for index in range(50):
        TaskSource(Spy(), "test").task(index)
    assert all(0 <= seed < 2**32 for seed in seeds)
    assert len(seeds) > 250  # about ten draws for each held-out task


def test_a_data_set_has_its_size_and_begins_anew() -> None:
    source = TaskSource(Questions(), "train")
    assert source.size == 7
    assert TaskSource(Numbers(), "train").size is None
    assert source.task(8) == source.task(1) == Task("question 1")


def test_distinct_gives_different_tasks_or_says_how_many_there_are() -> None:
    assert [t.prompt for t in TaskSource(Questions(), "train").distinct(6, start=4)] == [
        f"question {i}" for i in (4, 5, 0, 1, 2, 3)
    ]
    with pytest.raises(DataError, match="questions has 6 different tasks in split 'train'; 7 were asked for"):
        TaskSource(Questions(), "train").distinct(7)
    tasks = TaskSource(Orders(size=200), "test").distinct(15)
    assert len({task.id for task in tasks}) == 15
    with pytest.raises(DataError, match=r"few has . different tasks in split 'train'; 50 were asked for"):
        TaskSource(Few(), "train").distinct(50)


def test_unknown_and_empty_splits_are_refused() -> None:
    with pytest.raises(DataError, match="questions has no tasks in split 'dev'"):
        TaskSource(Questions(), "dev")
    with pytest.raises(
        DataError, match="numbers makes its tasks from seeds and has the splits train and test; got 'dev'"
    ):
        TaskSource(Numbers(), "dev")


def test_a_generator_that_never_reaches_a_split_is_refused() -> None:
    class Constant(Orders):
        def make_task(self, seed: int) -> Task:
            return Task("always the same")

    other = "test" if split_of(Task("always the same")) == "train" else "train"
    with pytest.raises(EnvDefinitionError, match="constant: 1000 seeds gave no task for split"):
        TaskSource(Constant(), other).task(0)


def test_tasks_must_be_tasks() -> None:
    class Wrong(Orders):
        def make_task(self, seed: int) -> Task:
            return "a prompt"  # type: ignore[return-value]

    with pytest.raises(EnvDefinitionError, match=r"wrong: a Task was wanted .* got 'a prompt'"):
        TaskSource(Wrong(), "train").task(0)


def test_an_environment_without_tasks_says_what_to_define() -> None:
    class Bare(Env):
        def reset(self, *, seed=None, options=None): ...
        def step(self, action): ...

    with pytest.raises(EnvDefinitionError, match=r"Bare gives no tasks: define make_task\(self, seed\)"):
        TaskSource(Bare(), "train").task(0)


def test_a_task_drawn_by_seed_comes_from_the_training_data() -> None:
    assert draw_task(Numbers(), 5) == Numbers().make_task(5)
    drawn = {draw_task(Questions(), seed).prompt for seed in range(60)}
    assert drawn == {f"question {i}" for i in range(6)}
    assert draw_task(Questions(), 1) == draw_task(Questions(), 1)


def test_task_ids_are_digests_of_the_content() -> None:
    assert Task("a", 1, {"k": [1]}).id == Task("a", 1, {"k": [1]}).id
    assert len({Task("a").id, Task("b").id, Task("a", 1).id, Task("a", data={"k": 1}).id}) == 4
    assert Task("a", id="given").id == "given"
