"""A small image made of this machine's own files, since tests fetch nothing: the interpreter, its library, a shell.

In: an engine. Out: the name of an image that it has now. `AGENTRL_SANDBOX_IMAGE` names one to take instead.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

NAME = "localhost/agentrl-sandbox-test"
_PROGRAMS = ("sh", "bash", "env", "cat", "ls", "true", "sleep", "id")
_LEFT_OUT = {"__pycache__", "test", "site-packages", "dist-packages", "idlelib", "lib2to3", "tkinter", "turtledemo"}
_FOLDERS = ("tmp", "etc", "proc", "sys", "dev", "run", "root", "var/tmp", "usr/sbin", "usr/bin")


def image_for(engine: str, folder: Path) -> str:
    """Raises CalledProcessError with what the engine said if it takes no image."""
    if given := os.environ.get("AGENTRL_SANDBOX_IMAGE"):
        return given
    archive = folder / "image.tar"
    if not archive.exists():
        _pack(archive)
    subprocess.run([engine, "import", str(archive), NAME], check=True, capture_output=True, timeout=120)
    return NAME


def forget(engine: str) -> None:
    subprocess.run([engine, "rmi", "--force", NAME], capture_output=True, timeout=60)


def _pack(archive: Path) -> None:
    library = Path(os.__file__).parent
    python = Path(os.path.realpath(sys.executable))
    programs = {f"/usr/bin/{name}": path for name in _PROGRAMS if (path := shutil.which(name, path="/usr/bin:/bin"))}
    with tarfile.open(archive, "w") as tar:
        for name in _FOLDERS:
            _add(tar, name, tarfile.DIRTYPE)
        for name in ("bin", "sbin", "lib", "lib64"):
            if os.path.islink(f"/{name}"):
                tar.add(f"/{name}", name, recursive=False)
        tar.add(library, str(library)[1:], filter=_wanted)
        tar.dereference = True
        for inside, path in {**programs, str(python): str(python)}.items():
            tar.add(path, inside[1:])
        modules = [str(path) for path in library.glob("lib-dynload/*.so")]
        for needed in _libraries([*programs.values(), str(python), *modules]):
            tar.add(needed, os.path.join(os.path.realpath(os.path.dirname(needed)), os.path.basename(needed))[1:])
        if str(python) != "/usr/bin/python3":
            _add(tar, "usr/bin/python3", tarfile.SYMTYPE, str(python))


def _wanted(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    parts = set(Path(entry.name).parts)
    return None if parts & _LEFT_OUT or any(part.startswith("config-") for part in parts) else entry


def _add(tar: tarfile.TarFile, name: str, kind: bytes, target: str = "") -> None:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname, entry.mode = kind, target, 0o1777 if name.endswith("tmp") else 0o755
    tar.addfile(entry)


def _libraries(programs: list[str]) -> set[str]:
    said = subprocess.run(["ldd", *programs], capture_output=True, text=True, timeout=60).stdout
    return {word for line in said.splitlines() for word in line.split() if word.startswith("/") and ":" not in word}
