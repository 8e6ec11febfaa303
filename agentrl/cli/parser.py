"""The arguments of every command, with their help. Imports nothing but argparse; a command's module is imported to run
it.
"""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

SECTIONS = ("envs", "tools", "presets", "engines", "suites", "recipes")


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line."""

    def __init__(self, **options: Any) -> None:
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message}; see {self.prog} --help\n")


def make_parser() -> Parser:
    """Build the parser; the namespace it gives has `command`, a function from the namespace to the exit code."""
    parser = Parser(
        prog="agentrl",
        description="Train and evaluate language-model agents that act over many turns.",
        epilog="examples:\n"
        "  agentrl train calculator --set engine.kind=vllm\n"
        "  agentrl eval calculator --policy runs/calculator-seed0\n"
        "  agentrl objective explain grpo\n"
        "  agentrl list envs",
    )
    parser.set_defaults(command=None)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    for add in (_add_train, _add_eval, _add_objective, _add_list, _add_check, _add_plot, _add_version):
        add(commands)
    return parser


def _command(module: str, function: str) -> Callable[[argparse.Namespace], int]:
    def run(arguments: argparse.Namespace) -> int:
        return int(vars(importlib.import_module(f"agentrl.cli.{module}"))[function](arguments))

    return run


def _add(commands: Any, name: str, module: str, summary: str, examples: str, *, function: str = "run") -> Parser:
    parser: Parser = commands.add_parser(name, help=summary, description=summary, epilog=f"examples:\n{examples}")
    parser.set_defaults(command=_command(module, function))
    return parser


def _add_train(commands: Any) -> None:
    parser = _add(
        commands,
        "train",
        "train",
        "Train an agent as a recipe says.",
        "  agentrl train calculator\n"
        "  agentrl train my_recipe.toml --set objective.preset=rloo --set rollout.group_size=16\n"
        "  agentrl train calculator --dry-run            print every setting and stop\n"
        "  agentrl train --resume runs/calculator-seed0  go on where a run stopped",
    )
    parser.add_argument("recipe", nargs="?", metavar="RECIPE", help="a recipe's path, or the name of a shipped one")
    _add_set(parser, "set a setting of the recipe, by its dotted path")
    parser.add_argument("--seed", type=int, metavar="N", help="the run's seed (as --set seed=N)")
    parser.add_argument("--out", metavar="DIR", help="the run folder (as --set out=DIR)")
    parser.add_argument(
        "--resume", type=Path, metavar="RUN", help="a run folder to go on in; RECIPE is then its config.toml"
    )
    parser.add_argument("--dry-run", action="store_true", help="print the resolved recipe as TOML and stop")
    _add_json(parser, "the summary")


def _add_eval(commands: Any) -> None:
    parser = _add(
        commands,
        "eval",
        "evaluation",
        "Evaluate a policy on a suite of scenarios.",
        "  agentrl eval calculator --policy runs/calculator-seed0 --limit 100\n"
        "  agentrl eval my_suite.toml --policy Qwen/Qwen3-0.6B --engine vllm --k 4\n"
        "  agentrl eval gsm8k --policy scripted:gold",
    )
    parser.add_argument("suite", metavar="SUITE", help="a suite's path, or the name of a shipped one")
    parser.add_argument(
        "--policy", required=True, metavar="P", help="a run folder, a checkpoint, a hub name, or scripted:NAME"
    )
    parser.add_argument("--k", type=_positive, metavar="N", help="episodes a task (default: the suite's)")
    parser.add_argument("--engine", choices=("hf", "vllm"), help="what samples a model (default: hf)")
    parser.add_argument(
        "--parser", metavar="NAME", help="how it writes tool calls (default: as the run, or by its chat template)"
    )
    parser.add_argument("--temperature", type=_temperature, metavar="T", help="0 is greedy (default: the suite's)")
    parser.add_argument("--limit", type=_positive, metavar="N", help="at most N tasks a scenario")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="the evaluation's seed (default: 0)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="keep the trajectories and the results here")
    _add_json(parser, "the results")


def _add_objective(commands: Any) -> None:
    summary = "Explain and audit objectives."
    parser: Parser = commands.add_parser("objective", help=summary, description=summary)
    inner = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_explain(inner)
    _add_audit(inner)
    listing = _add(
        inner,
        "list",
        "explaining",
        "List the presets by family, and the methods that are not built.",
        "  agentrl objective list\n  agentrl objective list --json -",
        function="run_list",
    )
    _add_json(listing, "the lists")


def _add_explain(commands: Any) -> None:
    parser = _add(
        commands,
        "explain",
        "explaining",
        "Explain a preset: its formula, each choice and its side, its source, what it needs.",
        "  agentrl objective explain gigpo\n"
        "  agentrl objective explain dapo --against grpo    only the slots that differ\n"
        "  agentrl objective explain my_method.toml",
    )
    parser.add_argument("preset", metavar="PRESET", help="a preset's name or file, or a method that is not built")
    parser.add_argument("--against", metavar="OTHER", help="another preset: print only the slots that differ")
    _add_json(parser, "the explanation")


def _add_audit(commands: Any) -> None:
    parser = _add(
        commands,
        "audit",
        "auditing",
        "Compare each estimator's expected gradient with the true one, over all batches of small decision processes.",
        "  agentrl objective audit\n"
        "  agentrl objective audit rloo grpo my_method.toml --group-size 2 3 4\n"
        "  agentrl objective audit rloo --set credit=rtg_turn --set baseline=state_leave_one_out\n"
        "  agentrl objective audit --off-policy",
    )
    parser.add_argument("presets", nargs="*", metavar="PRESET", help="presets' names or files (default: all)")
    parser.add_argument(
        "--group-size", type=_group_size, nargs="+", default=[2, 3], metavar="G", help="episodes a group (default: 2 3)"
    )
    parser.add_argument(
        "--off-policy",
        action="store_true",
        help="the samples are another policy's; without a PRESET: rloo with each correction",
    )
    _add_set(parser, "set a slot of every PRESET")
    parser.add_argument("--markdown", action="store_true", help="print Markdown, with the numbers of every setting")
    _add_json(parser, "the numbers")


def _add_list(commands: Any) -> None:
    parser = _add(
        commands,
        "list",
        "listing",
        "List what there is: " + ", ".join(SECTIONS) + ".",
        "  agentrl list\n  agentrl list presets\n  agentrl list envs --json -",
    )
    parser.add_argument("section", nargs="?", choices=SECTIONS, metavar="WHAT", help=f"{', '.join(SECTIONS)} (all)")
    _add_json(parser, "the lists")


def _add_check(commands: Any) -> None:
    parser = _add(
        commands,
        "check",
        "checking",
        "Check that an environment keeps its contract.",
        "  agentrl check calculator\n  agentrl check my_env.py:Orders --set level=2",
    )
    parser.add_argument("env", metavar="ENV", help='an env\'s id, "module:Class" or "path/to/file.py:Class"')
    _add_set(parser, "set a setting of the environment")
    _add_json(parser, "the results")


def _add_plot(commands: Any) -> None:
    parser = _add(
        commands,
        "plot",
        "plotting",
        "Draw a run's learning curve.",
        "  agentrl plot runs/calculator-seed0\n  agentrl plot runs/calculator-seed0 --out curve.png",
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="a run folder")
    parser.add_argument("--out", type=Path, metavar="PNG", help="the picture (default: RUN/learning_curve.png)")
    parser.set_defaults(json=None)


def _add_version(commands: Any) -> None:
    parser = _add(commands, "version", "version", "Print the versions in use.", "  agentrl version")
    _add_json(parser, "the versions")


def _add_set(parser: Parser, text: str) -> None:
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides", help=f"{text}; may be repeated"
    )


def _add_json(parser: Parser, what: str) -> None:
    parser.add_argument("--json", metavar="PATH", help=f"write {what} as JSON; - is stdout, and then nothing else is")


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"got {text!r}, wanted a whole number from 1 on")
    return int(text)


def _group_size(text: str) -> int:
    if text not in ("2", "3", "4", "5"):
        raise argparse.ArgumentTypeError(f"got {text!r}, wanted a whole number from 2 to 5: all groups are enumerated")
    return int(text)


def _temperature(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"got {text!r}, wanted a number from 0 on")
    return value
