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
        if path not in ("", "/") and not any(below(path, other) for other in (*SYSTEM, *found)):
            found.append(path)
    return found


def inside_names(folders: list[str]) -> list[tuple[str, str]]:
    """(outside, inside) for each folder."""
    return [
        (path, f"/python/{n}" if any(below(path, name) for name in RESERVED) else path)
        for n, path in enumerate(folders)
    ]


def paths_inside(places: list[tuple[str, str]]) -> list[str]:
    """`sys.path`, as it is inside."""
    return [name for path in sys.path if (name := moved(path, places))]


def move_interpreter(places: list[tuple[str, str]]) -> None:
    """The interpreter looks for its modules under their names inside, and nowhere else."""
    sys.path[:] = paths_inside(places)
    sys.path_importer_cache.clear()
    for name in ("prefix", "exec_prefix", "base_prefix", "base_exec_prefix", "executable", "_base_executable"):
        setattr(sys, name, moved(getattr(sys, name), places) or getattr(sys, name))
    sys.executable = os.path.realpath(getattr(sys, "_base_executable", sys.executable))
    for module in list(sys.modules.values()):
        if path := getattr(module, "__path__", None):
            module.__path__ = [moved(each, places) or each for each in path]


def _holds_packages(path: str) -> bool:
    return below(path, sys.prefix) or os.path.basename(path) in ("site-packages", "dist-packages")


def moved(path: str, places: list[tuple[str, str]]) -> str | None:
    """Where a path stands inside, or None if it is not to be seen there."""
    for outside, inside in places:
        if below(path, outside):
            return inside + path[len(outside) :]
    return path if any(below(path, name) for name in SYSTEM) else None


def below(path: str, folder: str) -> bool:
    """Whether it is the folder or something in it."""
    return path == folder or path.startswith(folder.rstrip("/") + "/")
