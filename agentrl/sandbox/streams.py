"""Reading what a run writes: always, so that it never waits for us; up to a cap, so that our memory is not filled."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

_CHUNK = 1 << 16


class CappedPipe:
    """The reading end of a pipe, in an event loop. `overflow` is called once when more than `cap` bytes came."""

    def __init__(self, fd: int, cap: int, overflow: Callable[[], None], ended: Callable[[], None]) -> None:
        self.truncated = False
        self.open = True
        self._fd, self._cap = fd, cap
        self._overflow, self._ended = overflow, ended
        self._content = bytearray()  # and no list of parts: a run may write byte by byte
        self._size = 0
        self._loop = asyncio.get_running_loop()
        os.set_blocking(fd, False)
        self._loop.add_reader(fd, self._read)

    def _read(self) -> bool:
        """One chunk. Returns whether there may be more at once."""
        try:
            chunk = os.read(self._fd, _CHUNK)
        except BlockingIOError:
            return False
        if not chunk:
            self.close()
            self._ended()
            return False
        room = self._cap - self._size
        if room > 0:
            self._content += chunk[:room]
        self._size += len(chunk)
        if self._size > self._cap and not self.truncated:
            self.truncated = True
            self._overflow()
        return True

    def drain(self) -> None:
        """Takes what is there now, up to the cap."""
        while self.open and not self.truncated and self._read():
            pass

    def take(self) -> tuple[str, bool]:
        """(text, truncated) since the last time; the cap counts anew."""
        content, cut = self.take_bytes()
        return content.decode("utf-8", "replace"), cut

    def take_bytes(self) -> tuple[bytes, bool]:
        content, cut = bytes(self._content), self.truncated
        self._content, self._size, self.truncated = bytearray(), 0, False
        return content, cut

    def close(self) -> None:
        if self.open:
            self.open = False
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
