"""The commands `docker` and `podman` as this package uses them: is it there, does it answer, has it the image.

In: the name of a command. Out: facts, and refusals that say what to do. It never fetches an image, and knows nothing of
workers.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import dataclass

from ..result import TierUnavailable

_ANSWER_S = 30.0
_INSTALL = {
    "docker": "install it (Debian, Ubuntu: `apt-get install docker.io`; else docs.docker.com/engine/install)",
    "podman": "install it (Debian, Ubuntu: `apt-get install podman`; Fedora: `dnf install podman`)",
}


@dataclass(frozen=True)
class Engine:
    """One that answers. `rootless`: it runs as this user, without root's power."""

    name: str
    version: str
    rootless: bool

    @property
    def maps_users(self) -> bool:
        """Whether this process's user is root in its containers, unless they are told otherwise."""
        return self.rootless and self.name == "docker"


ENGINES = ("docker", "podman")


def find(name: str) -> Engine:
    """Blocks while the command works. Raises TierUnavailable with what is missing and how to get it."""
    if shutil.which(name) is None:
        raise TierUnavailable(f"there is no command {name!r}: {_INSTALL[name]}")
    if name == "docker":
        _refuse_remote()
        code, version, error = ask(name, "version", "--format", "{{.Server.Version}}")
        if code or not version:
            raise TierUnavailable(_docker_help(error or version))
        _, options, _ = ask(name, "info", "--format", "{{json .SecurityOptions}}")
        return Engine(name, version, "name=rootless" in options)
    code, text, error = ask(name, "info", "--format", "json")
    if code:
        raise TierUnavailable(f"podman does not work for this user: {error}. See `podman info`{_SUBORDINATE}")
    known = json.loads(text)
    return Engine(name, known["version"]["Version"], bool(known["host"]["security"]["rootless"]))


_SUBORDINATE = "; without root it needs newuidmap (package uidmap) and lines for this user in /etc/subuid, /etc/subgid"


def require_image(engine: Engine, image: str) -> None:
    """Blocks. Raises TierUnavailable if the image is not on this machine: nothing is ever fetched."""
    code, _, error = ask(engine.name, "image", "inspect", "--format", "{{.Id}}", image)
    if code:
        raise TierUnavailable(
            f"{engine.name} has no image {image!r} on this machine ({error}), and a pool fetches none: run "
            f"`{engine.name} pull {image}` first, or name another with image= (it needs Python 3.11 or newer)"
        )


def containers(engine: Engine, prefix: str) -> list[str]:
    """Names of those, running or not, that begin so. Empty if the engine does not answer."""
    code, text, _ = ask(engine.name, "ps", "--all", "--filter", f"name={prefix}", "--format", "{{.Names}}")
    return [name for name in text.split() if name.startswith(prefix)] if not code else []


def remove_container(engine: Engine, name: str) -> None:
    """Ends it if it runs. That there is none of this name is no error."""
    ask(engine.name, "rm", "--force", name)


def ask(*command: str) -> tuple[int, str, str]:
    """(exit code, what it wrote, the last line of what it complained of), without blanks around."""
    try:
        run = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=_ANSWER_S
        )
    except subprocess.TimeoutExpired:
        return 124, "", f"no answer from `{' '.join(command[:2])}` within {_ANSWER_S:.0f} s"
    except OSError as error:
        return 126, "", str(error)
    return run.returncode, run.stdout.strip(), last_line(run.stderr)


def last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip() and "--help" not in line]
    return lines[-1] if lines else ""


def _refuse_remote() -> None:
    """A daemon of another machine, or in a virtual one, could not be given this machine's sockets and folders."""
    host = os.environ.get("DOCKER_HOST", "")
    if not host:
        code, text, _ = ask("docker", "context", "inspect", "--format", "{{.Endpoints.docker.Host}}")
        host = text if not code else ""
    if host and not host.startswith("unix://"):
        raise TierUnavailable(
            f"docker speaks to {host}, and this tier needs a daemon of this machine: unset DOCKER_HOST or "
            "`docker context use default`; to use another machine, run `sandbox-runner serve` there"
        )


def _docker_help(error: str) -> str:
    if "permission denied" in error:
        return (
            f"this user may not speak to docker's daemon ({error}): use rootless docker or podman, or add the user to "
            "the group `docker`, which is as good as being root"
        )
    return f"docker's daemon does not answer ({error}): start it (`systemctl start docker`)"
