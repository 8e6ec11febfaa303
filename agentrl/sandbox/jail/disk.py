"""How much is in a folder that somebody else is writing to."""

from __future__ import annotations

import os
from contextlib import suppress

_DEEPEST = 3500  # bytes of a path: what stands deeper than the kernel takes paths could not be counted


def exceeds(folder: str, size: int, files: int) -> bool:
    """Whether there are more than `size` bytes on disk or more than `files` names below the folder. Follows no link."""
    queue = [folder]
    if size < 0 or files < 0:
        return True
    while queue:
        path = queue.pop()
        if len(os.fsencode(path)) > _DEEPEST:
            return True
        with suppress(OSError), os.scandir(path) as entries:
            for entry in entries:
                with suppress(OSError):
                    size -= entry.stat(follow_symlinks=False).st_blocks * 512
                    files -= 1
                    if entry.is_dir(follow_symlinks=False):
                        queue.append(entry.path)
                if size < 0 or files < 0:
                    return True
    return False
