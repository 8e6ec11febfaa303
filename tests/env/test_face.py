"""`import agentrl`: every promised name, and nothing heavy."""

from __future__ import annotations

import subprocess
import sys

import pytest

import agentrl
import agentrl.env
import agentrl.messages


def loaded_after(code: str) -> set[str]:
    script = f"import sys; before = set(sys.modules); {code}; print(*(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, timeout=400)
    return {name.partition(".")[0] for name in done.stdout.split()}


def test_importing_agentrl_loads_no_other_package() -> None:
    loaded = loaded_after("import agentrl")
    assert {name for name in loaded if name not in sys.stdlib_module_names} == {"agentrl"}


def test_writing_an_environment_loads_no_backend() -> None:
    loaded = loaded_after("from agentrl import ToolEnv, make; make('calculator'); import agentrl.env.gym")
    assert "agentrl" in loaded
    assert not loaded & {"torch", "transformers", "vllm", "tokenizers", "pandas", "pyarrow"}


def test_every_name_of_the_face_is_there() -> None:
    for name in agentrl.__all__:
        assert name in dir(agentrl)
        home = agentrl.env if name in agentrl.env.__all__ else agentrl.messages
        if name.endswith("Failure"):
            home = agentrl.errors
        assert getattr(agentrl, name) is getattr(home, name)
    wanted = {"Env", "ToolEnv", "Task", "tool", "reward", "make", "Episode", "TurnView", "ToolCall", "UserMessage"}
    assert wanted <= set(agentrl.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'agentrl' has no attribute 'Tool_Env'"):
        _ = agentrl.Tool_Env
