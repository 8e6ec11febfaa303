"""Suites: what is read, and that every mistake is named with its file and its remedy."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentrl.errors import ConfigError, DataError
from agentrl.evaluate.suite import load_suite, suite_files

ROOT = Path(__file__).parents[2]
GOOD = '[[scenario]]\nname = "a"\nenv = "calculator"\n'


def write(folder: Path, text: str) -> Path:
    path = folder / "mine.toml"
    path.write_text(text)
    return path


def test_everything_that_can_be_set(tmp_path: Path) -> None:
    suite = load_suite(
        write(
            tmp_path,
            'name = "both"\ndescription = "Two."\n' + GOOD + '[[scenario]]\nname = "b"\nenv = "m:Env"\n'
            'settings = { digits = 3 }\nsplit = "train"\ntasks = 7\nseed = 2\nrepeats = 4\npass_threshold = 0.5\n'
            "temperature = 1\nmax_turns = 3\nmax_tokens_per_turn = 99\nmax_tokens_per_episode = 999\n",
        )
    )
    plain, full = suite.scenarios
    assert (suite.name, suite.description) == ("both", "Two.")
    assert (plain.split, plain.tasks, plain.repeats, plain.pass_threshold, plain.temperature) == (
        "test",
        "all",
        1,
        1,
        0,
    )
    assert (full.settings, full.split, full.tasks, full.seed, full.repeats) == ({"digits": 3}, "train", 7, 2, 4)
    assert (full.pass_threshold, full.temperature, full.max_turns) == (0.5, 1.0, 3)
    assert (full.max_tokens_per_turn, full.max_tokens_per_episode) == (99, 999)


@pytest.mark.parametrize("path", sorted((ROOT / "scenarios" / "suites").glob("*.toml")), ids=lambda path: path.stem)
def test_shipped_suites_are_sound(path: Path) -> None:
    suite = load_suite(path)
    assert suite.name == path.stem
    assert suite.description


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('nam = "x"\n' + GOOD, "unknown key 'nam'; did you mean 'name'?"),
        ('name = "x"\nscenarios = []\n', "unknown key 'scenarios'; did you mean 'scenario'?"),
        ('name = "x"\n' + GOOD + "task = 3\n", "unknown key 'task' of scenario 'a'; did you mean 'tasks'?"),
        ('name = "x"\n' + GOOD + "zzzz = 3\n", "unknown key 'zzzz' of scenario 'a'; known: name, env, settings"),
        (
            'name = "x"\n' + GOOD + 'tasks = "some"\n',
            "'tasks' of scenario 'a' = 'some': input should be a",
        ),
        ('name = "x"\n' + GOOD + "tasks = 0\n", "greater than or equal to 1 or input should be 'all'"),
        ('name = "x"\n' + GOOD + "tasks = true\n", "'tasks' of scenario 'a' = True"),
        ('name = "x"\n' + GOOD + "repeats = 0\n", "'repeats' of scenario 'a' = 0"),
        ('name = "x"\n' + GOOD + "temperature = -1\n", "'temperature' of scenario 'a' = -1"),
        ('name = "x"\n' + GOOD + "pass_threshold = nan\n", "finite number"),
        ('name = "x"\n' + GOOD + GOOD, "two scenarios have the name 'a'"),
        (GOOD, "'name' is missing"),
        ('name = "x"\n[[scenario]]\nname = "a"\n', "'env' of scenario 'a' is missing"),
        ('name = "x"\n[[scenario]]\nenv = "a"\n', "'name' of scenario 1 is missing"),
        ('name = "x"\n', "one or more [[scenario]] tables"),
        ('name = "x"\nscenario = []\n', "one or more [[scenario]] tables"),
        ('name = "x"\n[scenario]\nname = "a"\n', "one or more [[scenario]] tables"),
        ('name = "x"\nscenario = [3]\n', "one or more [[scenario]] tables"),
        ('name = "x"\ntasks == 3\n', "not valid TOML: Invalid value (at line 2"),
    ],
)
def test_mistakes_are_named_in_one_line(tmp_path: Path, text: str, told: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        load_suite(path)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert told in message
    assert "\n" not in message


def test_missing_suite_lists_those_that_exist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "scenarios" / "suites"
    folder.mkdir(parents=True)
    path = write(folder, 'name = "mine"\n' + GOOD)
    monkeypatch.chdir(tmp_path)
    for wrong in ("yours", "scenarios/suites/yours.toml", str(folder / "yours.toml"), "/nowhere/x.toml", "."):
        with pytest.raises(DataError, match=r"no suite .*; there are: .*mine\.toml"):
            load_suite(wrong)
    assert suite_files() == [path.relative_to(tmp_path)]


def test_missing_suite_outside_a_project_says_where_to_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="run this in the project's root"):
        load_suite("mine")
