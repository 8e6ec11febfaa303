"""The soak of benchmarks/soak_rollout.py: nothing grows, and the event loop stays punctual."""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType

import pytest

from agentrl.rollout.garbage import quiet_garbage
from tests.conftest import REPOSITORY


def soak_module() -> ModuleType:
    spec = importlib.util.spec_from_file_location("soak_rollout", REPOSITORY / "benchmarks" / "soak_rollout.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


async def test_a_thousand_episodes_leave_nothing_behind() -> None:
    found = await soak_module().soak(1_000, 256)
    assert [fault for fault in found.faults() if "late" not in fault] == []


@pytest.mark.slow
async def test_ten_thousand_episodes_a_thousand_at_once() -> None:
    with quiet_garbage():
        found = await soak_module().soak(10_000, 1024)
    assert [fault for fault in found.faults() if "late" not in fault] == []  # how late is the benchmark's to say
