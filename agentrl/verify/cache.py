"""What workers have found, kept for the next time.

What comes in: pairs of texts and what was found. What goes out: the same again. Bounded: keys are digests, and the
entry that was not asked for the longest goes first. For any number of threads.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict

from agentrl.verify.queue import Found


class Cache:
    """At most `size` entries of some 300 bytes."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._lock = threading.Lock()
        self._found: OrderedDict[bytes, Found] = OrderedDict()

    def __len__(self) -> int:
        return len(self._found)

    def get(self, gold: str, answer: str) -> Found | None:
        key = _key(gold, answer)
        with self._lock:
            found = self._found.get(key)
            if found is not None:
                self._found.move_to_end(key)
        return found

    def put(self, gold: str, answer: str, found: Found) -> None:
        """Keep what was found, unless it might come out otherwise at another time."""
        if not found.sure or self._size == 0:
            return
        with self._lock:
            self._found[_key(gold, answer)] = found
            while len(self._found) > self._size:
                self._found.popitem(last=False)


def _key(gold: str, answer: str) -> bytes:
    text = f"{len(gold)}:{gold}{answer}"
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
