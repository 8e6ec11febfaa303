"""`agentrl eval`: a policy's success on a suite, with intervals."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path

from rich.console import Console

from agentrl.cli import shipped
from agentrl.cli.output import STDOUT, write_json
from agentrl.cli.policy import Player, load_player
from agentrl.cli.stopping import run_stoppable
from agentrl.config.checks import check_ranges
from agentrl.config.overrides import apply_overrides, parse_override
from agentrl.config.typed import Origin, build, leaves
from agentrl.engine.settings import EngineSettings
from agentrl.env.registry import make
from agentrl.env.tasks import TaskSource
from agentrl.errors import AgentRLError, ConfigError
from agentrl.evaluate.evaluate import Progress, evaluate
from agentrl.evaluate.report import print_report
from agentrl.evaluate.result import ScenarioResult, SuiteResult
from agentrl.evaluate.suite import Scenario, Suite, load_suite
from agentrl.rollout.garbage import quiet_garbage
from agentrl.rollout.records import write_trajectories
from agentrl.rollout.settings import RolloutSettings
from agentrl.train.display import Display, make_display

_RECORD_TOKENS = 1_000_000  # of an episode whose tokens only record what an endpoint said
_REPORTS = {True: 1000, False: 20}  # of progress, a scenario: on a terminal, elsewhere


def run(arguments: argparse.Namespace) -> int:
    suite = adapt(load_suite(shipped.find("suite", arguments.suite)), arguments)
    if arguments.policy.startswith("scripted:"):
        ignored = (("--engine", arguments.engine), ("--set", arguments.overrides), ("--parser", arguments.parser))
        for option, given in ignored:
            if given:
                raise ConfigError(
                    f"--policy {arguments.policy} plays a script and would ignore {option}: leave {option} away"
                )
    settings = engine_settings(arguments.engine or "hf", suite, arguments.overrides)
    if settings.kind == "openai":
        if arguments.parser:
            raise ConfigError(
                "--engine openai reads tool calls from the endpoint and would ignore --parser: leave it away"
            )
        suite = with_room(suite, settings.max_context)
    envs = [make(scenario.env, **scenario.settings) for scenario in suite.scenarios]
    player = load_player(arguments.policy, settings, envs, seed=arguments.seed, parser=arguments.parser)
    played: list[ScenarioResult] = []
    try:
        with make_display(sys.stderr) as display, quiet_garbage():
            run_stoppable(_evaluate(suite, player, settings, arguments, display, played))
    except BaseException:
        if played:  # those before the scenario that stopped are kept
            missing = tuple(scenario.name for scenario in suite.scenarios[len(played) :])
            _tell_at_least(SuiteResult(suite.name, tuple(played), missing), arguments)
        raise
    _tell(SuiteResult(suite.name, tuple(played)), arguments)
    return 0


def _tell_at_least(result: SuiteResult, arguments: argparse.Namespace) -> None:
    """What cannot be told does not hide why the run stopped."""
    try:
        _tell(result, arguments)
    except (OSError, AgentRLError) as error:
        print(f"what was played could not be kept: {error}", file=sys.stderr)


def _tell(result: SuiteResult, arguments: argparse.Namespace) -> None:
    if arguments.out is not None:
        _save(result, arguments.out)
    if arguments.json != STDOUT:
        print_report(result, Console(highlight=False), policy=arguments.policy)
    write_json(arguments.json, result.to_dict())


async def _evaluate(
    suite: Suite,
    player: Player,
    settings: EngineSettings,
    arguments: argparse.Namespace,
    display: Display,
    played: list[ScenarioResult],
) -> None:
    """Play the suite; each scenario's result is added to `played`."""
    limits = None
    if settings.kind == "openai":  # what waits for its turn at the endpoint must not miss a deadline
        waits_s = (settings.openai.retries + 1) * settings.openai.request_deadline_s
        limits = RolloutSettings(
            concurrency=settings.openai.concurrency, turn_deadline_s=waits_s, episode_deadline_s=10 * waits_s
        )
    async with AsyncExitStack() as stack:
        stack.push_async_callback(player.engine.close)
        await player.engine.start()
        await evaluate(
            suite,
            player.engine,
            player.renderer,
            rollout=limits,
            repeats=arguments.k,
            seed=arguments.seed,
            on_progress=_Reporter(display),
            on_done=played.append,
        )


class _Reporter:
    """Shows how far a scenario is, now and then."""

    def __init__(self, display: Display) -> None:
        self._display = display
        self._reports = _REPORTS[sys.stderr.isatty()]
        self._scenario = ""

    def __call__(self, progress: Progress) -> None:
        if progress.scenario != self._scenario:
            self._scenario = progress.scenario
            self._display.stage(progress.scenario, progress.total)
        if progress.done % max(1, progress.total // self._reports) == 0 or progress.done == progress.total:
            self._display.advance(progress.done, {"failed": progress.failed})


def adapt(suite: Suite, arguments: argparse.Namespace) -> Suite:
    """The suite with what the arguments change in every scenario."""
    return suite.model_copy(update={"scenarios": tuple(_scenario(s, arguments) for s in suite.scenarios)})


def _scenario(scenario: Scenario, arguments: argparse.Namespace) -> Scenario:
    changed: dict[str, object] = {}
    if arguments.temperature is not None:
        changed["temperature"] = arguments.temperature
    if arguments.limit is not None:
        size = TaskSource(make(scenario.env, **scenario.settings), scenario.split).size
        wanted = arguments.limit if scenario.tasks == "all" else min(arguments.limit, scenario.tasks)
        changed["tasks"] = wanted if size is None else min(wanted, size)
    return scenario.model_copy(update=changed)


def engine_settings(kind: str, suite: Suite, overrides: Sequence[str]) -> EngineSettings:
    """The engine as the command line sets it, with room for the longest episode that a scenario allows.

    Raises:
        ConfigError: a setting is unknown, not the engine's, or of the wrong type.
    """
    usual = RolloutSettings().max_tokens_per_episode
    longest = max(s.max_tokens_per_episode or usual for s in suite.scenarios)
    table = {"kind": kind, "max_context": _RECORD_TOKENS if kind == "openai" else longest}
    parsed = [parse_override(text) for text in overrides]
    for override in parsed:
        if override.path[0] != "engine" or len(override.path) < 2:
            raise ConfigError(f"{override}: agentrl eval sets engine.* alone; what is played stands in the suite")
        if override.path == ("engine", "kind"):
            raise ConfigError(f"{override}: agentrl eval takes the engine's kind by --engine")
    tree = apply_overrides({"engine": table}, parsed)
    known = [("engine", *path) for path in leaves(EngineSettings)]
    settings = build(EngineSettings, tree["engine"], Origin("the command line", parsed, known), ("engine",))
    check_ranges(settings, "engine")
    return settings


def with_room(suite: Suite, max_tokens: int) -> Suite:
    """The suite with this limit of an episode's tokens: of a record in bytes, the scenarios' own say nothing."""
    freed = (s.model_copy(update={"max_tokens_per_episode": max_tokens}) for s in suite.scenarios)
    return suite.model_copy(update={"scenarios": tuple(freed)})


def _save(result: SuiteResult, folder: Path) -> None:
    """Write `results.json` and every scenario's trajectories."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(json.dumps(result.to_dict(), indent=2) + "\n", encoding="utf-8")
    for scenario in result.scenarios:
        path = folder / "trajectories" / f"{scenario.name.replace('/', '-')}.parquet"
        write_trajectories(path, scenario.result.trajectories, scenario=scenario.name)
