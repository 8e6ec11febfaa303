"""The error tree, and names that are nearly right."""

from __future__ import annotations

import inspect

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentrl import errors
from agentrl.errors import AgentRLError, BoundaryError, UnknownNameError, UserError, nearest

ALL = [value for value in vars(errors).values() if inspect.isclass(value) and issubclass(value, Exception)]


def test_every_error_is_ours() -> None:
    assert len(ALL) > 10
    assert all(issubclass(error, AgentRLError) for error in ALL)


@pytest.mark.parametrize("error", ALL)
def test_an_error_is_the_users_or_the_machinerys_and_never_both(error: type[Exception]) -> None:
    """`UserError` ends a run with exit code 2, `BoundaryError` becomes a failed episode: one of them must decide."""
    assert not (issubclass(error, UserError) and issubclass(error, BoundaryError))


def test_every_boundary_has_an_outcome_of_its_own() -> None:
    from agentrl.trajectory import Outcome

    boundaries = {e.__name__.removesuffix("Failure").lower() for e in ALL if e.__base__ is BoundaryError}
    assert {f"failed_{name}" for name in boundaries} == {o.value for o in Outcome if o.value.startswith("failed")}


def test_an_unknown_name_tells_the_nearest_and_all_known() -> None:
    error = UnknownNameError("preset", "gpro", ["rloo", "grpo"], hint="See docs.")
    assert str(error) == "there is no preset 'gpro'; did you mean 'grpo'? Known: grpo, rloo. See docs."


def test_an_unknown_name_without_a_near_one_tells_all_known() -> None:
    assert str(UnknownNameError("suite", "xyz", ["b", "a"])) == "there is no suite 'xyz'; known: a, b."
    assert str(UnknownNameError("suite", "xyz", [])) == "there is no suite 'xyz'; known: none."


def test_known_names_may_come_as_an_iterator() -> None:
    assert "did you mean 'grpo'" in str(UnknownNameError("preset", "grpoo", iter(["grpo"])))
    assert nearest("grpoo", iter(["grpo"])) == "grpo"


@pytest.mark.parametrize(
    ("got", "wanted"), [("gamma", "gamma"), ("gama", "gamma"), ("Gamma", "gamma"), ("zzz", None), ("", None)]
)
def test_nearest(got: str, wanted: str | None) -> None:
    assert nearest(got, ["beta", "gamma", "low"]) == wanted


@given(st.text(max_size=12), st.lists(st.text(max_size=12), max_size=6))
def test_nearest_gives_a_known_name_or_none(got: str, known: list[str]) -> None:
    found = nearest(got, known)
    assert found is None or found in known
    if got and got in known:
        assert found == got
