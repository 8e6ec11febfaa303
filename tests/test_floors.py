"""The floors of the house: who may import whom, here and outside. Reads every import, also those inside functions and
those for type checking alone: a file that names a type knows of it.

The tables say what DESIGN's says: a file imports from its own floor and from those below, without circles; environments
and tools that ship use the public face of floors 0 and 1; heavy packages stay in the rooms that are made for them.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = {"agentrl": "agentrl", "envs": "agentrl.envs", "tools": "agentrl.tools"}  # folder -> package

# First match wins. The garden stands beside floor 1: it uses floors 0 and 1, and is only ever looked up by name.
FLOORS = [
    ("agentrl", 1),  # the face for authors of environments
    ("agentrl.__main__", 4),
    ("agentrl.errors", 0),
    ("agentrl.messages", 0),
    ("agentrl.trajectory", 0),
    ("agentrl.seeds", 0),
    ("agentrl.engine.base", 1),
    ("agentrl.engine.settings", 1),
    ("agentrl.engine", 2),
    *((f"agentrl.{room}", 1) for room in ("env", "render", "sandbox", "verify", "objective", "envs", "tools")),
    *((f"agentrl.{room}", 2) for room in ("rollout", "learner")),
    *((f"agentrl.{room}", 3) for room in ("train", "evaluate", "diagnose", "view")),
    *((f"agentrl.{room}", 4) for room in ("config", "cli")),
]
GARDEN = ("agentrl.envs", "agentrl.tools")
GARDEN_USES = (
    *GARDEN,
    "agentrl",
    "agentrl.errors",
    "agentrl.messages",
    "agentrl.env",
    "agentrl.sandbox",
    "agentrl.verify",
)

ENGINES = tuple(f"agentrl.engine.{kind}" for kind in ("hf", "vllm", "server", "openai", "http"))

# What a room of one's own floor or of a lower one may still not see.
BLIND = {
    "agentrl.objective": ("agentrl.env", "agentrl.render", "agentrl.engine", "agentrl.messages"),
    "agentrl.rollout": ("agentrl.learner", "agentrl.objective", *ENGINES),
    "agentrl.learner": ("agentrl.env", "agentrl.render", "agentrl.rollout", *ENGINES),
    "agentrl.sandbox": ("agentrl",),
}

# Packages beside the standard library. First match wins; a module without a match imports none.
OUTSIDE = [
    ("*.settings", ""),
    ("agentrl.messages", "pydantic"),
    ("agentrl.trajectory", "numpy"),
    ("agentrl.env.*", "numpy pydantic pydantic_core gymnasium docstring_parser"),
    ("agentrl.render.*", "numpy jinja2 transformers tokenizers"),
    ("agentrl.objective.reward_side.*", "numpy"),
    ("agentrl.objective.audit.measure", "numpy torch"),
    ("agentrl.objective.trajectory_side.*", "numpy torch"),
    ("agentrl.objective.*", "numpy pydantic"),
    ("agentrl.engine.hf*", "numpy torch transformers safetensors"),
    ("agentrl.engine.vllm.engine", "numpy vllm"),
    ("agentrl.engine.vllm.process", "psutil"),
    ("agentrl.engine.http", "aiohttp"),
    ("agentrl.engine.server.launch", "huggingface_hub"),
    ("agentrl.engine.*", "numpy"),
    ("agentrl.rollout.*", "numpy pyarrow"),
    ("agentrl.verify.worker", "math_verify"),
    ("agentrl.learner.*", "numpy torch transformers safetensors"),
    ("agentrl.train.plot", "matplotlib"),
    ("agentrl.train.board", "tensorboard"),
    ("agentrl.train.*", "numpy torch rich"),
    ("agentrl.evaluate.*", "numpy pydantic rich"),
    ("agentrl.config.*", "pydantic tomli_w"),
    ("agentrl.cli.*", "rich tomli_w"),
    ("agentrl.tools.*", "numpy"),
    ("agentrl.envs.*", "numpy"),
]


@cache
def modules() -> dict[str, Path]:
    """Every module of the project by its full name; a package stands for its `__init__`."""
    found = {}
    for folder, package in FOLDERS.items():
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = [package, *path.relative_to(ROOT / folder).with_suffix("").parts]
            found[".".join(part for part in parts if part != "__init__")] = path
    return found


@cache
def imports(module: str) -> frozenset[str]:
    """Full names of all that `module` imports: modules of the project, top-level packages for the rest."""
    return _imported(module, [ast.parse(modules()[module].read_text(encoding="utf-8"))])


@cache
def running_imports(module: str) -> frozenset[str]:
    """As `imports`, without what stands under `if TYPE_CHECKING:` at the top of the file."""
    tree = ast.parse(modules()[module].read_text(encoding="utf-8"))
    return _imported(module, [n for n in tree.body if not (isinstance(n, ast.If) and names_type_checking(n.test))])


def names_type_checking(test: ast.expr) -> bool:
    return isinstance(test, ast.Name) and test.id == "TYPE_CHECKING"


def _imported(module: str, trees: Iterable[ast.AST]) -> frozenset[str]:
    found = set()
    package = module if modules()[module].name == "__init__.py" else module.rpartition(".")[0]
    for node in (node for tree in trees for node in ast.walk(tree)):
        if isinstance(node, ast.Import):
            found |= {ours_or_top(alias.name) for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package.rsplit(".", node.level - 1)[0] if node.level else ""
            source = ".".join(part for part in (base, node.module) if part)
            found |= {ours_or_top(f"{source}.{alias.name}") for alias in node.names}
    return frozenset(found - {module})


def ours_or_top(name: str) -> str:
    """`agentrl.env.task.Task` -> `agentrl.env.task`; `torch.nn` -> `torch`."""
    if not within(name, "agentrl"):
        return name.partition(".")[0]
    while name not in modules() and "." in name:
        name = name.rpartition(".")[0]
    return name


def within(module: str, room: str) -> bool:
    return module == room or module.startswith(room + ".")


def floor(module: str) -> int:
    for room, number in FLOORS:
        if module == room or (room != "agentrl" and within(module, room)):
            return number
    raise AssertionError(f"{module} stands on no floor: say on which in {Path(__file__).name}")


def outside(module: str) -> frozenset[str]:
    return frozenset(next((names.split() for pattern, names in OUTSIDE if fnmatchcase(module, pattern)), ()))


def packages_outside(module: str) -> frozenset[str]:
    return frozenset(n for n in imports(module) if not within(n, "agentrl") and n not in sys.stdlib_module_names)


def breaches(module: str) -> list[str]:
    """What `module` imports against the rules, each with the rule."""
    found = []
    for name in sorted(n for n in imports(module) if within(n, "agentrl")):
        if floor(name) > floor(module):
            found.append(f"{name}: floor {floor(name)}, above its own floor {floor(module)}")
        if module.startswith(GARDEN) and not any(
            name == room or (room != "agentrl" and within(name, room)) for room in GARDEN_USES
        ):
            found.append(f"{name}: not the public face of floors 0 and 1")
        if name.startswith(GARDEN) and not module.startswith(GARDEN):
            found.append(f"{name}: environments and tools that ship are looked up by name")
        for room, unseen in BLIND.items():
            if within(module, room) and not within(name, room):
                found += [f"{name}: {room} must not see it" for other in unseen if name.startswith(other)]
    for package in sorted(packages_outside(module) - outside(module)):
        found.append(f"{package}: allowed here: {', '.join(sorted(outside(module))) or 'nothing'}")
    return found


@pytest.mark.parametrize("module", sorted(modules()))
def test_module_keeps_to_its_floor(module: str) -> None:
    assert breaches(module) == []


def test_there_are_no_circles() -> None:
    """Of imports that run: two files may name each other's types."""
    graph = {module: {n for n in running_imports(module) if n in modules()} for module in modules()}
    assert circle(graph) == []


def test_rooms_of_a_floor_do_not_import_each_other_in_circles() -> None:
    graph: dict[str, set[str]] = {}
    for module in modules():
        targets = {room_of(n) for n in imports(module) if n in modules()}
        graph.setdefault(room_of(module), set()).update(targets - {room_of(module), "agentrl"})
    assert circle(graph) == []


def room_of(module: str) -> str:
    named = [room for room, _ in FLOORS if room != "agentrl" and within(module, room)]
    return named[0] if named else module


def circle(graph: dict[str, set[str]]) -> list[str]:
    """One circle of the graph, as the path that closes it; empty if there is none."""
    done: set[str] = set()

    def walk(node: str, path: list[str]) -> list[str]:
        if node in path:
            return [*path[path.index(node) :], node]
        if node in done:
            return []
        for target in sorted(graph.get(node, ())):
            if found := walk(target, [*path, node]):
                return found
        done.add(node)
        return []

    return next((found for node in sorted(graph) if (found := walk(node, []))), [])


@pytest.mark.parametrize(
    "code",
    [
        "import agentrl",
        "import runpy; sys.argv = ['agentrl', '--help']; runpy.run_module('agentrl', run_name='__main__')",
        "import runpy; sys.argv = ['agentrl', 'version']; runpy.run_module('agentrl', run_name='__main__')",
        "import agentrl.engine.settings, agentrl.learner.settings, agentrl.rollout.settings",
        "import agentrl.engine.vllm",
        "import agentrl.verify as v; assert v.Verifier().verify_sync('24', '#### 24').correct",
        "import agentrl.objective.reward_side",
        "import agentrl.cli as cli; sys.exit(cli.main(['objective', 'explain', 'gigpo', '--against', 'grpo']))",
        "import agentrl.cli as cli; sys.exit(cli.main(['objective', 'explain', 'ppo', '--json', '-']))",
        "import agentrl.cli as cli; sys.exit(cli.main(['objective', 'list']))",
        "import agentrl.cli as cli; sys.exit(cli.main(['objective', 'audit', '--help']))",
    ],
)
def test_light_doors_load_nothing_heavy(code: str, tmp_path: Path) -> None:
    script = f"""
import sys
try:
    {code}
except SystemExit as end:
    assert not end.code, end.code
heavy = {{"torch", "vllm", "transformers", "tokenizers", "pyarrow", "gymnasium", "sympy"}} & set(sys.modules)
print("loaded:", sorted(heavy))
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    run = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=400
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines()[-1] == "loaded: []"


def test_every_package_is_installed() -> None:
    """setuptools takes the packages that are listed, and no others."""
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    folders = {path.parent.relative_to(ROOT) for path in (ROOT / "agentrl").rglob("__init__.py")}
    assert {".".join(folder.parts) for folder in folders} <= set(listed)
