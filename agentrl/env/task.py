"""A task: what one episode is about.

What comes in: what the environment's author wrote. What goes out: a frozen value with a stable id. The id is a digest
of the content unless one is given, so equal tasks have equal ids wherever they were made: splits and records rely on
it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Task:
    """One problem. `prompt` is shown to the policy; `answer` and `data` are for the environment alone."""

    prompt: str
    answer: Any = None
    data: Mapping[str, Any] = field(default_factory=dict)
    id: str = ""

    def __post_init__(self) -> None:
        if not self.id:
            content = json.dumps([self.prompt, self.answer, dict(self.data)], sort_keys=True, default=repr)
            object.__setattr__(self, "id", hashlib.sha256(content.encode()).hexdigest()[:16])
