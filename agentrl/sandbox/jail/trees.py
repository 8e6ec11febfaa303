"""Which folders of the machine a run may see, and where they stand inside.

In: the running interpreter. Out: (outside, inside) pairs, and the interpreter's own notes of paths changed to match.
A folder that lies below a name that is used inside for something else (/work, /tmp, ...) gets another name there.
"""

from __future__ import annotations

import os
import sys

SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix/store", "/etc/alternatives")
RESERVED = ("/work", "/tmp", "/dev", "/proc", "/sys", "/etc", "/box", "/python")


def python_folders() -> list[str]:
    """Folders of this interpreter and its installed packages, also those of another environment that it looks into.
    Folders of projects that are under work are left out.
    """
    wanted = [sys.base_prefix, sys.base_exec_prefix]
    wanted += [path for path in sys.path if _holds_packages(path) and os.path.isdir(path)]
    found: list[str] = []
    for path in wanted:
        if path not in ("", "/") and not any(_below(path, other) for other in (*SYSTEM, *found)):
            found.append(path)
    return found


def inside_names(folders: list[str]) -> list[tuple[str, str]]:
    """(outside, inside) for each folder."""
    return [
        (path, f"/python/{n}" if any(_below(path, name) for name in RESERVED) else path)
        for n, path in enumerate(folders)
    ]


def move_interpreter(places: list[tuple[str, str]]) -> None:
    """The interpreter looks for its modules under their names inside, and nowhere else."""
    sys.path[:] = [moved for path in sys.path if (moved := _moved(path, places))]
    sys.path_importer_cache.clear()
    for name in ("prefix", "exec_prefix", "base_prefix", "base_exec_prefix", "executable", "_base_executable"):
        setattr(sys, name, _moved(getattr(sys, name), places) or getattr(sys, name))
    sys.executable = os.path.realpath(getattr(sys, "_base_executable", sys.executable))
    for module in list(sys.modules.values()):
        if path := getattr(module, "__path__", None):
            module.__path__ = [_moved(each, places) or each for each in path]


def _holds_packages(path: str) -> bool:
    return _below(path, sys.prefix) or os.path.basename(path) in ("site-packages", "dist-packages")


def _moved(path: str, places: list[tuple[str, str]]) -> str | None:
    for outside, inside in places:
        if _below(path, outside):
            return inside + path[len(outside) :]
    return path if any(_below(path, name) for name in SYSTEM) else None


def _below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")
