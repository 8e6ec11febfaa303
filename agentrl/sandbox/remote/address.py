"""A server as the client knows it: where it is, how it does, and when it may be asked again. Times in seconds."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Address:
    """`http://host:port` or `https://host:port`."""

    host: str
    port: int
    secure: bool

    @classmethod
    def parse(cls, text: str) -> Address:
        """Raises ValueError for anything else."""
        parts = urlsplit(text)
        rest = parts.path.strip("/") or parts.query or parts.fragment or parts.username
        if parts.scheme not in ("http", "https") or not parts.hostname or rest:
            raise ValueError(f"{text!r} is no address of a server: write http://host:port or https://host:port")
        secure = parts.scheme == "https"
        return cls(parts.hostname, parts.port or (443 if secure else 80), secure)

    @property
    def netloc(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(eq=False)
class Server:
    address: Address
    under_way: int = 0  # requests
    failures: int = 0  # in a row
    rests_until: float = field(default=0.0)  # of the monotonic clock
    trouble: str = ""  # the last one

    def order(self) -> tuple[float, int]:
        """The least is asked next: of those that do not rest the one with the least to do, else who rests shortest."""
        now = time.monotonic()
        return (max(self.rests_until - now, 0.0), self.under_way)

    def well(self) -> None:
        self.failures = 0

    def busy(self, seconds: float) -> None:
        self.rests_until = max(self.rests_until, time.monotonic() + seconds)

    def failed(self, why: str, pause_s: float) -> None:
        self.failures += 1
        self.trouble = why
        self.rests_until = max(self.rests_until, time.monotonic() + pause_s)

    def __str__(self) -> str:
        return self.address.netloc
