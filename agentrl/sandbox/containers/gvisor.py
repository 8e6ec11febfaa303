"""Starts a worker in a gVisor sandbox of its own: programs inside speak to gVisor's kernel, and not to the machine's.

It needs the command `runsc` and no image: the sandbox is shown the system's programs and this interpreter, read-only,
as runs of tier `zygote` are. Descriptors can be given to it, and it can give none back.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import shutil
import sys
from pathlib import Path
from typing import Any

from ..jail import trees
from ..limits import Limits
from ..result import TierUnavailable
from ..starts import ENVIRONMENT, JAIL, Process, loader
from .caller import RUNS, Caller, beginning
from .engine import ask, last_line

_RIGHTS = ("SYS_ADMIN", "SETUID", "SETGID", "CHOWN", "DAC_OVERRIDE", "FOWNER", "KILL")  # over gVisor's kernel alone
_ETC = {
    "passwd": "root:x:0:0:root:/:/bin/sh\n",
    "group": "root:x:0:\n",
    "hosts": "127.0.0.1 localhost\n",
    "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
}
_COPIED = ("ld.so.cache", "localtime", "mime.types")


class Gvisor:
    """A place for workers: gVisor sandboxes, each a kernel of its own."""

    tier = "gvisor"
    files = False

    def __init__(self) -> None:
        self.walls: tuple[str, ...] = ("guest",)
        self._version = ""

    async def open(self, walls: str) -> Process:
        """Raises TierUnavailable with what is missing and how to get it."""
        if not self._version:
            self._version = await asyncio.to_thread(find_runsc)
        sandbox = Sandbox(self._version)
        try:
            await sandbox.start()
        except BaseException:
            sandbox.end()
            raise
        return sandbox

    def check(self, limits: Limits) -> None:
        """Any will do."""


def find_runsc() -> str:
    """Its version. Blocks. Raises TierUnavailable if there is none that will do."""
    if shutil.which("runsc") is None:
        raise TierUnavailable(
            "there is no command 'runsc': install gVisor (Debian: `apt-get install runsc`; newer and faster ones: "
            "gvisor.dev/docs/user_guide/install)"
        )
    code, version, error = ask("runsc", "--version")
    if code:
        raise TierUnavailable(f"runsc does not work: {error}")
    return version.splitlines()[0].removeprefix("runsc version ")


class Sandbox(Caller):
    keeps_folder = True  # runsc has its notes there

    def __init__(self, version: str) -> None:
        super().__init__(f"sandbox-runner-{secrets.token_hex(6)}")
        self.base = RUNS
        self.features = {"engine": f"gVisor {version}", "inside": "guest"}

    def command(self, folder: str) -> list[str]:
        os.makedirs(f"{folder}/rootfs/etc")
        _fill_root(Path(folder, "rootfs"))
        Path(folder, "config.json").write_text(json.dumps(_bundle(folder)))
        return [*self._runsc(folder), "run", f"--bundle={folder}", self._name]

    def _runsc(self, folder: str) -> list[str]:
        words = ["runsc", f"--root={folder}/state", "--network=none", "--host-uds=open", "--ignore-cgroups"]
        return [*words, "--rootless"] if os.geteuid() else words

    def explain(self, said: str) -> str:
        advice = (
            ": this runsc is too old, one of December 2022 or newer is needed" if "not defined: -host" in said else ""
        )
        return f"a gVisor sandbox: {last_line(said)}{advice}"

    def destroy(self) -> None:
        ask(*self._runsc(self._folder), "delete", "--force", self._name)


def _fill_root(root: Path) -> None:
    for name in trees.SYSTEM:
        if os.path.islink(name):
            (root / name[1:]).symlink_to(os.readlink(name))
    for name, text in _ETC.items():
        (root / "etc" / name).write_text(text)
    for name in _COPIED:
        if os.path.isfile(f"/etc/{name}"):
            shutil.copyfile(f"/etc/{name}", root / "etc" / name)


def _bundle(folder: str) -> dict[str, Any]:
    """As the OCI runtime specification wants it."""
    places = trees.inside_names(trees.python_folders())
    shown = [(name, name) for name in trees.SYSTEM if os.path.isdir(name) and not os.path.islink(name)]
    shown += [*places, (str(JAIL), "/jail"), (f"{folder}/control", "/control")]
    mounts: list[dict[str, Any]] = [
        {"destination": "/proc", "type": "proc", "source": "proc"},
        *({"destination": name, "type": "tmpfs", "source": "tmpfs"} for name in ("/tmp", os.path.dirname(RUNS))),
        *(
            {"destination": inside, "type": "bind", "source": outside, "options": ["rbind", "ro"]}
            for outside, inside in shown
        ),
    ]
    rights = [f"CAP_{name}" for name in _RIGHTS]
    return {
        "ociVersion": "1.0.0",
        "process": {
            "user": {"uid": 0, "gid": 0},
            "args": [_inside(os.path.realpath(sys.executable), places), "-I", "-X", "utf8", "-c", _program(places)],
            "env": [f"{name}={value}" for name, value in ENVIRONMENT.items()],
            "cwd": "/",
            "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), rights),
            "noNewPrivileges": True,
        },
        "root": {"path": "rootfs", "readonly": True},
        "hostname": "sandbox",
        "mounts": mounts,
        "linux": {"namespaces": [{"type": kind} for kind in ("pid", "network", "ipc", "uts", "mount")]},
    }


def _program(places: list[tuple[str, str]]) -> str:
    """It finds the packages that this interpreter finds."""
    known = [_inside(path, places) for path in sys.path]
    return beginning(f"sys.path += [path for path in {known!r} if path and path not in sys.path]") + loader("/jail")


def _inside(path: str, places: list[tuple[str, str]]) -> str:
    """Where the sandbox sees it; empty if it does not."""
    for outside, inside in [*places, *((name, name) for name in trees.SYSTEM)]:
        if path == outside or path.startswith(outside + "/"):
            return inside + path[len(outside) :]
    return ""
