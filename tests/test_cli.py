"""The command line as a user meets it: what is printed where, exit codes, and errors on one line."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from agentrl.cli import main
from agentrl.cli.evaluation import adapt
from agentrl.cli.parser import make_parser
from agentrl.config import read_recipe
from agentrl.evaluate.suite import load_suite

RECIPE = 'name = "mine"\n\n[env]\nid = "calculator"\n'
SUITE = 'name = "mine"\n\n[[scenario]]\nname = "sums"\nenv = "calculator"\ntasks = 20\n'
# A run of a few seconds: its warm-up alone would go on for minutes.
SMALL = (
    "policy.tiny={hidden = 32, layers = 1, heads = 2, kv_heads = 1, head_dim = 16, merges = 0}",
    "warmup={steps = 2000, episodes_per_step = 4}",
    "rollout={groups_per_step = 2, group_size = 2, concurrency = 4, max_tokens_per_turn = 32}",
    "evaluation.tasks=4",
    "launch.threads=1",
)
BAD_TOOL = '''
from agentrl.env import Task, ToolEnv, tool

class Untyped(ToolEnv):
    """A tool without type hints."""

    def make_task(self, seed):
        return Task("Say hello.", id=str(seed))

    @tool
    def look(self, place):
        """Look somewhere.

        Args:
            place: Where.
        """
        return "nothing"
'''
BROKEN_ENV = '''
from agentrl.env import Task, ToolEnv, reward
from agentrl.messages import AssistantMessage

class Broken(ToolEnv):
    """Its step fails every time."""

    def make_task(self, seed):
        return Task("Say hello.", id=str(seed))

    def oracle(self, task, messages):
        return AssistantMessage(content="hello")

    @reward(kind="outcome")
    def greeted(self, task, episode) -> float:
        return float(episode.final_text == "hello")

    def step(self, action):
        raise RuntimeError("the world has ended")
'''


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in, with a recipe and a suite of one's own."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.toml").write_text(RECIPE)
    (tmp_path / "suite.toml").write_text(SUITE)
    return tmp_path


@pytest.fixture
def refused(here: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs a command that must be refused: exit code 2, nothing on stdout, one line on stderr, which it returns."""

    def run(*argv: str) -> str:
        capsys.readouterr()
        try:
            code = main(argv)
        except SystemExit as stop:  # argparse's way
            code = stop.code
        out, err = capsys.readouterr()
        assert code == 2, err
        assert out == ""
        assert err.startswith("error: ")
        assert err.count("\n") == 1
        assert err.endswith("\n")
        return err

    return run


def command(*argv: str) -> list[str]:
    return [sys.executable, "-m", "agentrl", *argv]


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (("train",), "agentrl train RECIPE"),
        (("train", "calculater"), "there is no recipe 'calculater'"),
        (("train", "./none.toml"), "there is no recipe file './none.toml'; give a path, or a name"),
        (("train", "mine.toml", "--set", "rollout.gruop_size=4"), "did you mean 'rollout.group_size'?"),
        (("train", "mine.toml", "--set", "seed"), "write it like --set objective.preset=rloo"),
        (("train", "mine.toml", "--set", "env.id=calculater"), "did you mean 'calculator'?"),
        (("train", "mine.toml", "--set", "env.id=nowhere.py:Env"), "nowhere.py"),
        (("train", "mine.toml", "--set", "env.settings.dificulty=easy"), "difficulty"),
        (("train", "mine.toml", "--set", "objective.preset=grop"), "did you mean 'grpo'?"),
        (("train", "mine.toml", "--set", "objective.gate=clp"), "did you mean 'clip'?"),
        (("train", "mine.toml", "--set", "rollout.group_size=1"), "set rollout.group_size >= 2"),
        (("train", "mine.toml", "--set", "engine.kind=vlm"), "did you mean 'vllm'?"),
        (("train", "mine.toml", "--set", "engine.vllm.kv_cache_gib=4"), "remove it or set engine.kind = 'vllm'"),
        (("train", "mine.toml", "--set", "policy.path=./nowhere"), "give a checkpoint folder or a hub name"),
        (("train", "mine.toml", "--seed", "three"), "see agentrl train --help"),
        (("train", "--resume", "nowhere"), "is no run folder"),
        (("train", "mine.toml", "--resume", "nowhere"), "leave RECIPE and --out away"),
        (("eval", "nosuite", "--policy", "scripted:oracle"), "there is no suite 'nosuite'"),
        (("eval", "suite.toml"), "--policy"),
        (("eval", "suite.toml", "--policy", "scripted:oracel"), "did you mean 'oracle'?"),
        (("eval", "suite.toml", "--policy", "./nowhere"), "--policy: there is no model folder './nowhere'"),
        (("eval", "suite.toml", "--policy", "scripted:oracle", "--k", "0"), "wanted a whole number from 1 on"),
        (("eval", "suite.toml", "--policy", "scripted:oracle", "--temperature", "-1"), "wanted a number from 0 on"),
        (("eval", "suite.toml", "--policy", "x", "--engine", "hff"), "choose from"),
        (("eval", "suite.toml", "--policy", "x", "--parser", "herms"), "did you mean 'hermes'"),
        (("eval", "suite.toml", "--policy", "scripted:oracle", "--parser", "hermes"), "would ignore --parser"),
        (("eval", "suite.toml", "--policy", "x", "--parser", "python_block:nope"), "Calculator has none of that name"),
        (("train", "mine.toml", "--set", "policy.parser=python_block:nope"), "it has calculator: name one"),
        (("train", "mine.toml", "--set", "policy.parser=python_block"), "'python_block:calculator'"),
        (("train", "mine.toml", "--set", "policy.parser=python_block:calculator"), "which takes expression: name one"),
        (("list", "env"), "choose from"),
        (("check", "calculater"), "did you mean 'calculator'?"),
        (("check", "calculator", "--set", "dificulty=easy"), "difficulty"),
        (("list", "envs", "--json", "no/such/folder.json"), "give the path of a file in a folder that is there"),
        (("trian",), "see agentrl --help"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(refused: Callable[..., str], argv: tuple[str, ...], said: str) -> None:
    assert said in refused(*argv)


def test_tool_without_type_hints(here: Path, refused: Callable[..., str]) -> None:
    (here / "bad.py").write_text(BAD_TOOL)
    for argv in (("check", "bad.py:Untyped"), ("train", "mine.toml", "--set", "env.id=bad.py:Untyped")):
        message = refused(*argv)
        assert "look" in message
        assert "place" in message


def test_data_that_is_absent_or_broken(
    here: Path, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    argv = ("eval", "gsm8k", "--policy", "scripted:gold", "--limit", "1")
    monkeypatch.delenv("AGENTRL_DATA", raising=False)
    assert "AGENTRL_DATA" in refused(*argv)
    monkeypatch.setenv("AGENTRL_DATA", str(here))
    assert str(here) in refused(*argv)
    (here / "gsm8k").mkdir()
    (here / "gsm8k" / "test.jsonl").write_text('{"question": "1+1?", "answer": "#### 2"}\n{"question": "1+\n')
    message = refused(*argv)
    assert "test.jsonl" in message
    assert "2" in message


def test_policy_that_is_a_run_without_checkpoints(here: Path, refused: Callable[..., str]) -> None:
    (here / "run").mkdir()
    (here / "run" / "config.toml").write_text(RECIPE)
    assert "agentrl train --resume run" in refused("eval", "suite.toml", "--policy", "run")


def test_a_run_is_played_with_its_own_parser(here: Path, refused: Callable[..., str]) -> None:
    (here / "run").mkdir()
    (here / "run" / "config.toml").write_text(RECIPE + '\n[policy]\nparser = "pythonik"\n')
    assert "did you mean 'pythonic'" in refused("eval", "suite.toml", "--policy", "run")
    assert "--resume run" in refused("eval", "suite.toml", "--policy", "run", "--parser", "hermes")


def test_no_command_prints_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "train" in capsys.readouterr().out


def test_an_environment_whose_init_raises_is_one_line(here: Path) -> None:
    (here / "faulty.py").write_text(BROKEN_ENV + "\n    def __init__(self):\n        super().__init__(1 / 0)\n")
    argv = command("train", "mine.toml", "--dry-run", "--set", "env.id=faulty.py:Broken")
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stderr == "error: Broken.__init__ raised ZeroDivisionError: division by zero\n"


def test_dry_run_prints_the_resolved_recipe_and_nothing_else(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["train", "mine.toml", "--dry-run", "--seed", "3", "--out", 'a "b"', "--set", "objective.preset=dr_grpo"]
    assert main([*argv, "--set", "objective.gate.high=0.3"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    tree = tomllib.loads(out)
    assert (tree["seed"], tree["out"]) == (3, 'a "b"')
    assert tree["objective"] == {"preset": "dr_grpo", "gate": {"high": 0.3}}
    assert set(os.listdir(here)) == {"mine.toml", "suite.toml"}
    (here / "resolved.toml").write_text(out)
    assert read_recipe("resolved.toml").objective.overrides == {"gate": {"high": 0.3}}


def test_recipe_by_name_from_the_project_of_the_current_folder(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "scenarios" / "train").mkdir(parents=True)
    (here / "scenarios" / "train" / "own.toml").write_text("# My own.\n" + RECIPE)
    assert main(["train", "own", "--dry-run"]) == 0
    assert tomllib.loads(capsys.readouterr().out)["name"] == "mine"
    assert main(["list", "recipes", "--json", "-"]) == 0
    assert {"name": "own", "description": "My own."} in json.loads(capsys.readouterr().out)["recipes"]


def test_list_names_everything(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "--json", "all.json"]) == 0
    out = capsys.readouterr().out
    listed = json.loads((here / "all.json").read_text())
    expected = {
        "envs": {"calculator", "gsm8k"},
        "tools": {"calculator", "python", "shell"},
        "presets": {"reinforce", "rloo", "grpo", "dr_grpo"},
        "engines": {"hf", "vllm", "vllm-server", "openai", "scripted:oracle", "scripted:null"},
        "suites": {"gsm8k"},
    }
    for section, names in expected.items():
        found = {entry["name"]: entry["description"] for entry in listed[section]}
        assert names <= set(found)
        assert all(found[name] for name in names)
        assert all(name in out for name in names)


def test_check_passes_a_good_environment(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "calculator", "--set", "difficulty=easy", "--json", "-"]) == 0
    results = json.loads(capsys.readouterr().out)
    assert len(results) >= 4
    assert all(result["passed"] for result in results)


def test_check_fails_a_bad_environment(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "broken.py").write_text(BROKEN_ENV)
    assert main(["check", "broken.py:Broken"]) == 1
    out = capsys.readouterr().out
    assert "FAILED" in out
    assert "the world has ended" in out


def test_eval_with_a_script(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["eval", "suite.toml", "--limit", "5", "--k", "2", "--temperature", "1", "--out", "o", "--json", "r.json"]
    assert main([*argv, "--policy", "scripted:oracle"]) == 0
    out, err = capsys.readouterr()
    assert "sums" in out
    assert "sums 10/10" in err
    overall = json.loads((here / "r.json").read_text())["overall"]
    assert (overall["success"]["mean"], overall["episodes"], overall["failed"]) == (1.0, 10, 0)
    assert json.loads((here / "o" / "results.json").read_text())["overall"]["episodes"] == 10
    assert (here / "o" / "trajectories" / "sums.parquet").is_file()


def test_what_a_stopped_suite_leaves_names_the_scenarios_that_it_is_without(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "broken.py").write_text(BROKEN_ENV)
    (here / "suite.toml").write_text(SUITE + '[[scenario]]\nname = "bad"\nenv = "broken.py:Broken"\ntasks = 2\n')
    argv = ["eval", "suite.toml", "--limit", "2", "--policy", "scripted:oracle", "--json", "r.json"]
    assert main(argv) == 1
    kept = json.loads((here / "r.json").read_text())
    assert (kept["missing"], kept["overall"]["episodes"]) == (["bad"], 2)
    assert "stopped before its end; without: bad" in capsys.readouterr().out
    assert main([*argv, "--out", "broken.py"]) == 1  # a file, so that nothing can be kept there
    errors = capsys.readouterr().err
    assert "what was played could not be kept" in errors
    assert "the world has ended" in errors


def test_eval_arguments_change_every_scenario(here: Path) -> None:
    (here / "suite.toml").write_text(SUITE + '[[scenario]]\nname = "few"\nenv = "calculator"\ntasks = 2\n')
    argv = ["eval", "suite.toml", "--policy", "scripted:oracle", "--limit", "5", "--temperature", "0.5"]
    suite = adapt(load_suite("suite.toml"), make_parser().parse_args(argv))
    assert [(s.name, s.tasks, s.temperature) for s in suite.scenarios] == [("sums", 5, 0.5), ("few", 2, 0.5)]
    unchanged = make_parser().parse_args(argv[:4])
    assert adapt(load_suite("suite.toml"), unchanged) == load_suite("suite.toml")


def test_eval_that_breaks_stops_and_keeps_what_was_played(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "broken.py").write_text(BROKEN_ENV)
    broken = SUITE.partition("\n\n")[2].replace('"calculator"', '"broken.py:Broken"').replace('"sums"', '"greetings"')
    (here / "suite.toml").write_text(SUITE + broken)
    assert main(["eval", "suite.toml", "--policy", "scripted:oracle", "--json", "r.json"]) == 1
    out, err = capsys.readouterr()
    assert "sums" in out
    assert [s["name"] for s in json.loads((here / "r.json").read_text())["scenarios"]] == ["sums"]
    told = "error: scenario 'greetings': 11 of 20 episodes failed, and rollout.max_failed_share = 0.5: failed_env x11: "
    assert err.splitlines()[-1].startswith(told)
    assert "the world has ended" in err


def test_json_to_stdout_is_all_of_stdout(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", "suite.toml", "--policy", "scripted:null", "--limit", "3", "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out)["overall"]["success"]["mean"] == 0.0
    assert main(["version", "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out)["agentrl"]


def test_pipe_that_closes_early_is_no_error(here: Path) -> None:
    with subprocess.Popen(command("list", "presets"), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stderr
        process.stdout.close()
        assert process.stderr.read() == b""


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom agentrl.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit as stop:\n    assert stop.code == 0\n"
        "heavy = {'torch', 'vllm', 'transformers', 'gymnasium', 'pydantic', 'numpy', 'rich', 'tomli_w'}\n"
        "sys.exit(', '.join(heavy & set(sys.modules)) or 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "examples:" in done.stdout


@pytest.mark.parametrize("name", ["train", "eval", "list", "check", "version"])
def test_every_command_has_help_with_examples(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([name, "--help"])
    assert stop.value.code == 0
    out = capsys.readouterr().out
    assert f"  agentrl {name}" in out
    assert "--json" in out


def test_checks_import_no_torch(here: Path) -> None:
    code = (
        "import sys\nfrom agentrl.cli import main\nmain(['train', 'mine.toml', '--dry-run'])\nmain(['list'])\n"
        "sys.exit(', '.join({'torch', 'vllm', 'transformers'} & set(sys.modules)) or 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def small_run(*more: str) -> list[str]:
    sets = [part for text in (*SMALL, *more) for part in ("--set", text)]
    return command("train", "mine.toml", "--out", "run", *sets)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_run_says_how_to_go_on(here: Path, number: signal.Signals) -> None:
    with subprocess.Popen(small_run(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout
        line = next((line for line in process.stdout if line.startswith("warm-up (imitation) 2/")), None)
        process.send_signal(number)
        _, err = process.communicate(timeout=120)
    assert line is not None, err
    assert process.returncode in (130, -signal.SIGINT)  # the second where Python met the interrupt inside an exec()
    assert err.splitlines()[-1] == "stopped; go on with: agentrl train --resume run"
    assert "Traceback" not in err
    assert read_recipe(here / "run" / "config.toml").warmup.steps == 2000


def test_train_then_eval_then_go_on(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    short = ("warmup.steps=1", "train.steps=1")
    done = subprocess.run([*small_run(*short), "--json", "-"], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary == json.loads((here / "run" / "summary.json").read_text())
    assert (summary["run"], summary["engine"], summary["success"]["end"]["n"]) == ("run", "hf", 4)
    assert "next: agentrl eval SUITE --policy run" in done.stderr
    assert "\x1b" not in done.stderr

    assert main(["train", "mine.toml", "--out", "run"]) == 2
    assert "--resume run" in capsys.readouterr().err

    assert main(["train", "--resume", "run", "--set", "train.steps=2"]) == 0
    assert "RL (grpo) 2/2" in capsys.readouterr().out
    assert read_recipe(here / "run" / "config.toml").train.steps == 2

    (here / "suite.toml").write_text(SUITE + "max_tokens_per_turn = 16\n")
    assert main(["eval", "suite.toml", "--policy", "run", "--limit", "3", "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out)["overall"]["episodes"] == 3


def test_run_that_stops_itself_is_one_line_and_exit_code_1(here: Path) -> None:
    (here / "broken.py").write_text(BROKEN_ENV)
    done = subprocess.run(small_run("env.id=broken.py:Broken"), capture_output=True, text=True, timeout=240)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("error: ")
    assert "the world has ended" in done.stderr
    assert "Traceback" not in done.stderr


def test_table_fits_a_real_narrow_terminal(here: Path) -> None:
    parent, child = pty.openpty()
    env = {**os.environ, "COLUMNS": "40", "TERM": "xterm"}
    process = subprocess.Popen(command("list", "engines"), stdout=child, stderr=child, env=env)
    os.close(child)
    shown, deadline = b"", time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            part = os.read(parent, 65536)
        except OSError:  # the other side has closed
            break
        if not part:
            break
        shown += part
    os.close(parent)
    assert process.wait(timeout=60) == 0
    assert b"vllm" in shown
