"""The fork of a session, in the session's own process: from the order to fork to a branch that goes on by itself.

What runs here is in the hands of the session's code, and a branch can do no more than that: its keeper, which alone can
let it have namespaces of its own, gives it its descriptors and its folders, and looks at it before it may go on.
"""

from __future__ import annotations

import os
import sys
import warnings
from contextlib import suppress
from typing import Any

from . import syscalls as sc

APART = sc.CLONE_NEWUSER | sc.CLONE_NEWNS  # the namespaces that a branch asks for
READY = 0  # asked for when it has given up its rights: answered when its folders are there


def fork_session() -> dict[str, Any] | None:
    """In the session, the answer to give. In the branch, None: it has its own descriptors and folders.

    Threads and child processes stay with the session, as with any fork.
    """
    folder = _folder()
    try:
        adopts = sc.adopts_orphans()
        sc.adopt_orphans(False)  # the branch is the keeper's
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that threads do not come along is known
            middle = os.fork()
        if middle == 0:
            _step_aside()
            _become(folder)
            return None
        _, status = os.waitpid(middle, 0)
        sc.adopt_orphans(adopts)
    except OSError as error:
        return {"ending": "error", "error": str(error)}
    return {"ending": "forked"} if status == 0 else {"ending": "error", "error": "it has as many processes as it may"}


def _step_aside() -> None:
    """Goes on in a child alone, so that the branch is no child of the session, and ends apart from it."""
    try:
        if os.fork() == 0:
            return
    except OSError:  # there is no room for another process
        os._exit(1)
    os._exit(0)


def _become(folder: str) -> None:
    try:
        os.setsid()
        sc.unshare(APART)
        sc.give_up_rights()
        sc.allow_own_proc()
        sc.unshare(READY)
    except BaseException as error:
        try:
            os.write(2, str(error).encode(errors="replace"))  # by now it is the branch's own, and may have no reader
        finally:
            os._exit(1)  # or it would go on as the session, with the same conversation
    for place in (folder, "/work"):
        with suppress(OSError):
            os.chdir(place)
            break
    fresh_randomness()


def _folder() -> str:
    try:
        return os.getcwd()
    except OSError:
        return "/work"


def fresh_randomness() -> None:
    """Python's own generator is seeded anew at each fork; numpy's is not."""
    numpy: Any = sys.modules.get("numpy")
    if numpy is not None and "numpy.random" in sys.modules:
        numpy.random.seed(int.from_bytes(os.urandom(4), "little"))
