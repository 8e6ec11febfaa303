"""What this machine allows: every tier is really tried, in processes that are thrown away; and that in plain words."""

from __future__ import annotations

import platform
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .containers import CONTAINER_TIERS, DEFAULT_IMAGE
from .pool import SandboxPool
from .result import SandboxError
from .starts import PROGRAMS

TRIED = ("zygote", "bwrap", "landlock", *CONTAINER_TIERS)

_MEANING = {
    "zygote": "namespaces, Landlock and a filter of system calls: no file, process or network but its own is seen",
    "bwrap": "bubblewrap's namespaces and our filter of system calls, and an interpreter started for each run: slower",
    "landlock": "Landlock and a filter of system calls, no namespaces: one process without children and sockets",
    "gvisor": "workers in sandboxes of gVisor, whose kernel stands between the runs and the machine's; slow",
    "docker": "workers in containers of docker, with one of the first walls inside",
    "podman": "workers in containers of podman, with one of the first walls inside",
}
_SETTINGS = {  # what people turn user namespaces off with
    "/proc/sys/user/max_user_namespaces": ("0", "sysctl -w user.max_user_namespaces=15000"),
    "/proc/sys/kernel/unprivileged_userns_clone": ("0", "sysctl -w kernel.unprivileged_userns_clone=1"),
    "/proc/sys/kernel/apparmor_restrict_unprivileged_userns": (
        "1",
        "an AppArmor profile with `userns,` for this Python, or the same by sysctl set to 0",
    ),
}


@dataclass(frozen=True)
class Finding:
    tier: str
    works: bool
    features: Mapping[str, Any] = field(default_factory=dict)
    refused: str = ""  # the step that failed


async def probe(image: str = DEFAULT_IMAGE) -> list[Finding]:
    """One finding for each tier: the strongest first, then those that a pool tries only if it is asked to."""
    found = []
    for tier in TRIED:
        try:
            async with SandboxPool(tier=tier, workers=1, image=image) as pool:
                found.append(Finding(tier, True, dict(pool.features)))
        except SandboxError as error:
            found.append(Finding(tier, False, refused=str(error)))
    return found


def explain(found: list[Finding]) -> str:
    """What was found, for people: what works, what does not, why, and what would help."""
    lines = [
        f"Linux {platform.release()} on {platform.machine()}, Python {platform.python_version()} ({sys.executable})",
        "",
    ]
    for each in found:
        lines.append(f"{each.tier:10}{'works' if each.works else 'does not work'}: {_MEANING[each.tier]}")
        lines += [f"{'':10}{word}" for word in (_details(each) if each.works else [each.refused, *_help(each.tier)])]
    best = next((each.tier for each in found if each.works and each.tier not in CONTAINER_TIERS), None)
    lines += [
        "",
        f"A pool without a `tier` takes {best!r}." if best else "No tier works here: a pool will refuse to start.",
    ]
    return "\n".join(lines)


def _details(each: Finding) -> list[str]:
    features = each.features
    if each.tier in CONTAINER_TIERS:
        return [
            f"{features['engine']}, image {features.get('image', 'none')}; walls of a run inside: {features['inside']}"
        ]
    if each.tier == "bwrap":
        user = "" if features.get("own_user") else ", runs have this process's own user outside"
        return [f"bubblewrap {features.get('bwrap')}{user}"]
    words = [
        f"Landlock version {features['landlock']}"
        + ("" if features["landlock"] >= 6 else ", older than 6: signals and abstract sockets are held by other means")
        if features.get("landlock")
        else "without Landlock, which is a second wall here: the first one holds"
    ]
    if features.get("proc") is False:
        words.append("runs have no /proc: parts of the machine's are covered, as in many containers")
    if features.get("forks") is False:
        words.append("sessions cannot be forked, for want of that /proc")
    if features.get("watched") is False:
        words.append("there is no /proc: memory and processor time are limited for each process, not for a whole run")
    if features.get("own_user") is False and each.tier == "landlock":
        words.append("runs have this process's own user: give the service a user of its own that owns nothing of value")
    return words


def _help(tier: str) -> list[str]:
    if tier in CONTAINER_TIERS:
        return []  # what is refused there says what to do
    if tier == "landlock":
        return ["It needs Linux 5.13 or newer with `landlock` in the kernel's lsm= list, on x86-64 or ARM64."]
    if tier == "bwrap" and shutil.which("bwrap", path=PROGRAMS) is None:
        return [f"Install bubblewrap (apt install bubblewrap); it is looked for in {PROGRAMS}."]
    words = [
        f"{path} is {value}: {cure}"
        for path, (value, cure) in _SETTINGS.items()
        if Path(path).is_file() and Path(path).read_text().strip() == value
    ]
    if not words:
        words = ["In Docker, --security-opt seccomp=unconfined --security-opt systempaths=unconfined helps."]
    if tier == "bwrap":
        words.append("It is known to work with bubblewrap 0.8; 0.6 and those that are set-uid lack sized folders.")
        words.append("On Ubuntu the AppArmor profile bwrap-userns-restrict allows bubblewrap what others are refused.")
    return words
