"""What README and docs/ say is so: the environments run, the command lines parse, the links lead somewhere.

The README's environment is taken verbatim. Command lines are parsed by the real parser and never executed.
"""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import pytest

from agentrl import AssistantMessage, ToolCall, check_env, make
from agentrl.cli.parser import make_parser
from agentrl.config.recipes import read_recipe
from agentrl.engine.scripted import SCRIPTS, ScriptedEngine, canned
from agentrl.evaluate import load_suite
from agentrl.render.parsers import HermesParser
from agentrl.render.renderer import Renderer
from agentrl.render.tokenizer import ByteTokenizer
from agentrl.rollout.episode import Job, run_episode
from agentrl.rollout.settings import RolloutSettings
from agentrl.trajectory import Outcome, Trajectory

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
PAGES = [README, ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
MOST_LINES = 30  # of the README's environment, imports and data included, blank lines not

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_CODE_SPAN = re.compile(r"`([^`]+)`")
_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")

CALL = ("find_order", {"order_id": "#W0001"})


def blocks(page: Path, language: str) -> list[str]:
    return [body for lang, body in _FENCE.findall(page.read_text(encoding="utf-8")) if lang == language]


def environment(page: Path, name: str) -> str:
    """The page's python block that opens with `# <name>`."""
    found = [body for body in blocks(page, "python") if body.startswith(f"# {name}\n")]
    assert len(found) == 1, f"{page.name} has {len(found)} blocks that open with '# {name}'"
    return found[0]


@pytest.fixture
def orders(tmp_path: Path) -> Any:
    """The README's environment, in a file as a newcomer would have it."""
    file = tmp_path / "orders.py"
    file.write_text(environment(README, "orders.py"), encoding="utf-8")
    return f"{file}:Orders"


def test_the_readme_environment_is_about_twenty_lines() -> None:
    lines = [line for line in environment(README, "orders.py").splitlines()[1:] if line.strip()]
    assert len(lines) <= MOST_LINES


def test_the_readme_environment_keeps_the_contract(orders: str) -> None:
    """It shows no oracle, so that row alone may fail."""
    failed = {result.name: result.detail for result in check_env(orders) if not result.passed}
    failed.pop("oracle", None)
    assert failed == {}


def call(name: str, arguments: dict[str, Any]) -> AssistantMessage:
    return AssistantMessage(tool_calls=(ToolCall(id="1", name=name, arguments=arguments),))


async def episode(target: str, *lines: AssistantMessage | str, answer: str | None = None) -> Trajectory:
    """Play these lines on the task about order #W0001."""
    env = make(target)
    tasks = [task for split in ("train", "test") for task in env.tasks(split) or ()]
    task = next((t for t in tasks if "#W0001" in t.prompt), None) or next(
        t for t in map(env.make_task, range(100_000)) if "#W0001" in t.prompt
    )
    said = [task.answer if line == "ANSWER" else line for line in lines]
    engine = ScriptedEngine(canned(said))
    renderer = Renderer(ByteTokenizer(), HermesParser())
    settings = RolloutSettings(max_tokens_per_episode=10_000)
    return await run_episode(Job(task, "g", 0), env, engine, renderer, settings, episode_id="e")


def parts(trajectory: Trajectory) -> list[dict[str, float]]:
    return [dict(turn.rewards) for turn in trajectory.turns]


async def test_looking_up_and_answering_pays_both_rewards(orders: str) -> None:
    trajectory = await episode(orders, call(*CALL), "ANSWER")
    assert trajectory.outcome is Outcome.TERMINATED
    assert parts(trajectory) == [{"valid_call": 0.1}, {"valid_call": 0.0, "correct": 1.0}]
    assert trajectory.reward == pytest.approx(1.1)
    assert trajectory.reward_kinds == {"correct": "outcome", "valid_call": "process"}


async def test_guessing_right_pays_the_outcome_alone(orders: str) -> None:
    assert parts(await episode(orders, "ANSWER")) == [{"valid_call": 0.0, "correct": 1.0}]


async def test_a_wrong_answer_pays_nothing(orders: str) -> None:
    assert (await episode(orders, "eaten")).reward == 0.0


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        (call("find_order", {"order_id": "#W9999999"}), "exception"),  # "a tool that raises"
        (call("find_order", {"id": 1}), "bad_arguments"),
        (call("find_odor", {}), "unknown_tool"),
    ],
)
async def test_a_bad_call_becomes_an_error_message(orders: str, wrong: AssistantMessage, error: str) -> None:
    trajectory = await episode(orders, wrong, "ANSWER")
    assert parts(trajectory) == [{"valid_call": 0.0}, {"valid_call": 0.0, "correct": 1.0}]
    assert trajectory.metrics[f"tool_error/{error}"] == 1
    assert trajectory.messages[3]["role"] == "tool"
    assert trajectory.messages[3]["content"].startswith("Error: ")


async def test_the_episode_is_cut_after_its_turns(orders: str) -> None:
    trajectory = await episode(orders, call(*CALL))
    assert trajectory.outcome is Outcome.TRUNCATED_TURNS
    assert len(trajectory.turns) == make(orders).max_turns
    assert trajectory.reward == pytest.approx(0.1 * len(trajectory.turns))


@pytest.mark.parametrize("name", ["orders.py:Orders", "guess.py:Guess"])
def test_the_environments_of_the_docs_pass_every_check(name: str, tmp_path: Path) -> None:
    file, _, env_class = name.partition(":")
    code = environment(ROOT / "docs" / "environments.md", file)
    (tmp_path / file).write_text(code, encoding="utf-8")
    assert [r for r in check_env(f"{tmp_path / file}:{env_class}") if not r.passed] == []


def test_the_episode_of_the_docs_is_played(capsys: pytest.CaptureFixture[str]) -> None:
    code = next(body for body in blocks(ROOT / "docs" / "README.md", "python") if "run_episode(\n" in body)
    exec(compile(code, "docs/README.md", "exec"), {})
    assert capsys.readouterr().out == "terminated 1.0 [{}, {'correct': 1.0}]\n"


def test_the_suite_of_the_docs_loads(tmp_path: Path) -> None:
    [text] = blocks(ROOT / "docs" / "evaluation.md", "toml")
    (tmp_path / "suite.toml").write_text(text, encoding="utf-8")
    [scenario] = load_suite(tmp_path / "suite.toml").scenarios
    assert make(scenario.env, **scenario.settings).name == "calculator"


def test_the_objective_of_the_docs_is_sound(tmp_path: Path) -> None:
    from agentrl.objective import load_spec

    text = next(body for body in blocks(ROOT / "docs" / "objective.md", "toml") if body.startswith("[objective]"))
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(f'name = "a"\nenv = {{ id = "calculator" }}\n{text}', encoding="utf-8")
    objective = read_recipe(recipe).objective
    spec = load_spec(objective.preset, objective.overrides)
    assert tomllib.loads(text)["objective"]["gate"]["high"] == spec.gate.high  # type: ignore[attr-defined]


def python_blocks() -> list[tuple[str, str]]:
    return [(page.name, body) for page in PAGES for body in blocks(page, "python")]


@pytest.mark.parametrize(("page", "body"), python_blocks())
def test_what_python_blocks_import_is_there(page: str, body: str) -> None:
    for line in body.splitlines():
        if line.startswith(("import agentrl", "from agentrl")) and "(" not in line:
            exec(compile(line, page, "exec"), {})


def commands() -> list[tuple[str, str]]:
    """Every line of a shell block, and every code span in the text, that begins with agentrl."""
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        lines = [line.strip() for lang in ("sh", "") for body in blocks(page, lang) for line in body.splitlines()]
        spans = [span for span in _CODE_SPAN.findall(_FENCE.sub("", text)) if "\n" not in span]
        found += [(page.name, line) for line in lines + spans if line.startswith("agentrl ")]
    return list(dict.fromkeys(found))


def command_lines() -> list[tuple[str, str]]:
    """Those that could be typed as they stand, so not the mere names of commands."""
    return [
        (page, line)
        for page, line in commands()
        if len(line.split()) > 2 or line in ("agentrl list", "agentrl version")
    ]


def test_there_are_command_lines() -> None:
    assert len(command_lines()) > 20


@pytest.mark.parametrize("line", sorted({line for _, line in commands()} - {line for _, line in command_lines()}))
def test_named_commands_are_there(line: str) -> None:
    with pytest.raises(SystemExit) as end:
        make_parser().parse_args([line.split()[1], "--help"])
    assert end.value.code == 0


@pytest.mark.parametrize(("page", "line"), command_lines())
def test_command_lines_parse(page: str, line: str) -> None:
    words = shlex.split(line, comments=True)[1:]
    arguments = make_parser().parse_args(words)
    assert arguments.command is not None
    policy = getattr(arguments, "policy", "")
    if policy.startswith("scripted:"):
        assert policy.removeprefix("scripted:") in {*SCRIPTS, "NAME"}


def test_settings_on_command_lines_are_known() -> None:
    """A recipe's settings, that is: those of `check` are the environment's own."""
    recipe = ROOT / "scenarios" / "train" / "calculator.toml"
    for _page, line in command_lines():
        words = shlex.split(line, comments=True)[1:]
        if words[0] == "train":
            read_recipe(recipe, make_parser().parse_args(words).overrides)


def links() -> list[tuple[Path, str]]:
    found = [(page, target) for page in PAGES for target in _LINK.findall(page.read_text(encoding="utf-8"))]
    return [(page, target) for page, target in found if not re.match(r"[a-z]+:|#", target)]


@pytest.mark.parametrize(("page", "target"), links(), ids=lambda v: v if isinstance(v, str) else v.name)
def test_relative_links_lead_somewhere(page: Path, target: str) -> None:
    assert (page.parent / target.partition("#")[0]).exists()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_code_blocks_are_closed(page: Path) -> None:
    assert page.read_text(encoding="utf-8").count("```") == 2 * len(_FENCE.findall(page.read_text(encoding="utf-8")))
