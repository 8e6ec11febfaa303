"""Environments by name.

What comes in: an id ("calculator"), a class in a module ("package.module:Class") or in a file ("to/file.py:Class"), and
settings. What goes out: an environment object, or an error that says what to write instead. Ids are those that ship,
those registered here, and the entry points "agentrl.envs" of installed packages. Nothing is imported before an
environment is asked for.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from agentrl.env.arguments import Arguments, BadArguments, read_parameters
from agentrl.env.base import Env
from agentrl.errors import AgentRLError, ConfigError, EnvDefinitionError, UnknownNameError, nearest

SHIPPED: Mapping[str, str] = {
    "calculator": "agentrl.envs.calculator:Calculator",
    "courier": "agentrl.envs.courier:Courier",
    "gsm8k": "agentrl.envs.gsm8k:GSM8K",
}
ENTRY_POINTS = "agentrl.envs"

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
_registered: dict[str, str | type[Env]] = {}


@dataclass(frozen=True, slots=True)
class EnvSpec:
    """An environment that can be made. `target` is "module:Class", "file.py:Class" or the class itself."""

    id: str
    target: str | type[Env]

    def load(self) -> type[Env]:
        """Import the class.

        Raises:
            ConfigError: there is no such module or file.
            UnknownNameError: the module has no such class.
            EnvDefinitionError: importing it failed, or it is no environment.
        """
        return _load(self.target) if isinstance(self.target, str) else self.target

    @property
    def description(self) -> str:
        """The first line of the class's docstring. Imports the class."""
        return (inspect.getdoc(self.load()) or "").partition("\n")[0]


def register(id: str, target: str | type[Env]) -> None:
    """Make an environment known by `id` in this process.

    Raises:
        ConfigError: the id is taken by another environment, or is not a plain word.
    """
    if not _ID.fullmatch(id):
        raise ConfigError(f"{id!r} cannot be an environment's id; use letters, digits, _ and -")
    taken = _registered.get(id) or SHIPPED.get(id)
    if taken is not None and taken != target:
        raise ConfigError(f"the environment id {id!r} is taken by {taken}; choose another")
    _registered[id] = target


def env_ids() -> list[str]:
    """All known ids, sorted."""
    return sorted({*SHIPPED, *_registered, *_entry_points()})


def spec(id_or_path: str) -> EnvSpec:
    """Look an environment up, without importing it.

    Raises:
        UnknownNameError: the id is not known.
    """
    if ":" in id_or_path:
        return EnvSpec(id_or_path, id_or_path)
    target = _registered.get(id_or_path) or SHIPPED.get(id_or_path) or _entry_points().get(id_or_path)
    if target is None:
        raise UnknownNameError(
            "environment", id_or_path, env_ids(), hint='Your own is named as "module:Class" or "path/to/file.py:Class".'
        )
    return EnvSpec(id_or_path, target)


def make(id_or_path: str, /, **settings: Any) -> Env:
    """Make an environment. Settings are the keyword arguments of its `__init__`, checked against its type hints.

    Raises:
        UnknownNameError: there is no such environment.
        ConfigError: a setting is unknown, missing or of the wrong type, or there is no such module or file.
        EnvDefinitionError: the environment, a tool or a reward is declared in a way that cannot work.
    """
    found = spec(id_or_path)
    env_class = found.load()
    checked = _validated(found.id, env_class, settings)
    try:
        env = env_class(**checked)
    except AgentRLError:
        raise
    except Exception as error:
        raise EnvDefinitionError(f"{env_class.__name__}.__init__ raised {type(error).__name__}: {error}") from error
    _ = env.tool_schemas, env.reward_kinds  # a wrong declaration shows now, not in the first episode
    if type(env.max_turns) is not int or env.max_turns < 1:
        raise EnvDefinitionError(
            f"{env_class.__name__}.max_turns is {env.max_turns!r}: a whole number from 1 on is wanted"
        )
    return env


def _validated(id: str, env_class: type[Env], settings: Mapping[str, Any]) -> dict[str, Any]:
    if inspect.isabstract(env_class):
        missing = ", ".join(sorted(env_class.__abstractmethods__))
        raise EnvDefinitionError(f"{env_class.__name__} must define {missing} before it can be played")
    if env_class.__init__ is object.__init__:
        arguments = Arguments(id, ())
    else:
        owner = f"{env_class.__name__}.__init__"
        arguments = Arguments(id, read_parameters(env_class.__init__, owner)[1:], any_type=True)
    for name in settings.keys() - set(arguments.names):
        near = nearest(name, arguments.names)
        guess = f"; did you mean {near!r}?" if near else "."
        known = ", ".join(arguments.names) or "none"
        raise ConfigError(f"environment {id!r} has no setting {name!r}{guess} Its settings: {known}.")
    try:
        return arguments.validate(settings)
    except BadArguments as error:
        raise ConfigError(f"environment {id!r}: setting {error}") from None


def _entry_points() -> dict[str, str]:
    return {point.name: point.value for point in entry_points(group=ENTRY_POINTS)}


def _load(target: str) -> type[Env]:
    place, _, class_name = target.rpartition(":")
    module = _load_file(Path(place)) if place.endswith(".py") else _load_module(place)
    classes = {
        name: value for name, value in vars(module).items() if isinstance(value, type) and issubclass(value, Env)
    }
    if class_name in classes:
        return classes[class_name]
    if class_name in vars(module):
        raise EnvDefinitionError(f"{target} is not an environment class; make it a subclass of ToolEnv or Env")
    own = [name for name, value in classes.items() if value.__module__ == module.__name__]
    raise UnknownNameError(f"environment class in {place}", class_name, own)


def _load_module(name: str) -> ModuleType:
    here = str(Path.cwd())
    if here not in sys.path:  # a console script does not look in the user's project by itself
        sys.path.append(here)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise ConfigError(f"there is no module {name!r}; name one that can be imported from {here}") from None
        raise _import_failed(name, error) from error
    except AgentRLError:
        raise
    except Exception as error:
        raise _import_failed(name, error) from error


def _load_file(path: Path) -> ModuleType:
    """Import a file once, under a name of its own; files beside it can be imported by it."""
    path = path.resolve()
    if not path.is_file():
        raise ConfigError(f'there is no file {path}; an environment is named as "path/to/file.py:Class"')
    name = f"agentrl_file_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    if name in sys.modules:
        return sys.modules[name]
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    found = importlib.util.spec_from_file_location(name, path)
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    sys.modules[name] = module  # type hints and pickles look the module up here
    try:
        found.loader.exec_module(module)
    except AgentRLError:
        del sys.modules[name]
        raise
    except Exception as error:
        del sys.modules[name]
        raise _import_failed(str(path), error) from error
    return module


def _import_failed(what: str, error: Exception) -> EnvDefinitionError:
    return EnvDefinitionError(f"{what} cannot be imported: {type(error).__name__}: {error}")
