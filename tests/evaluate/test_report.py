"""The printed report: what stands in it, and that it fits."""

from __future__ import annotations

import io
from types import SimpleNamespace

import pytest
from rich.console import Console

from agentrl.evaluate.report import print_report
from agentrl.evaluate.result import ScenarioResult, SuiteResult, summarise

FAULTS = tuple(f"line {i}: the mark <<1+1=[3]>> is wrong" for i in range(9))


@pytest.fixture(scope="module")
def result(make: SimpleNamespace) -> SuiteResult:
    good, bad, broken = [make.episode()], [make.episode(0.0), make.episode(1.0)], [make.failed()]
    return SuiteResult(
        "both",
        (
            ScenarioResult("easy [bold]", "calculator", "test", 1.0, FAULTS, summarise([good, good, good, broken])),
            ScenarioResult("twice", "calculator", "test", 2.0, (), summarise([bad] * 40)),
            ScenarioResult("broken", "calculator", "test", 2.0, ("one",), summarise([broken])),
        ),
    )


def printed(result: SuiteResult, *, width: int = 100, terminal: bool = False) -> str:
    out = io.StringIO()
    print_report(
        result, Console(file=out, width=width, force_terminal=terminal, color_system=None), policy="scripted:x"
    )
    return out.getvalue()


def rows(text: str) -> dict[str, list[str]]:
    return {line.split("  ")[0].strip(): line.split() for line in text.splitlines() if line.strip()}


def test_every_scenario_has_its_row(result: SuiteResult) -> None:
    found = rows(printed(result))
    assert " ".join(found["scenario"]) == "scenario success pass@2 n failed truncated reward turns tokens"
    assert found["easy [bold]"][2:] == ["1.000", "[0.439,", "1.000]", "3", "1", "0", "1.000", "1.0", "3"]
    assert found["twice"][1] == "0.500"
    assert found["twice"][4:] == ["1.000", "80", "0", "0", "0.500", "1.0", "3"]
    assert found["broken"][1:] == ["-", "0", "1", "0", "-", "-", "-"]
    assert found["all"][4:] == ["83", "2", "0", "0.518"]


def test_failures_and_the_first_faults_follow(result: SuiteResult) -> None:
    text = printed(result)
    assert "easy [bold]: failed_tool x1, the first: ToolFailure: gone" in text
    assert "easy [bold]: 9 faults in the data itself (split 'test')" in text
    assert "broken: 1 fault in the data itself" in text
    assert FAULTS[2] in text
    assert FAULTS[3] not in text
    assert "and 6 more: --json PATH" in text


@pytest.mark.parametrize("terminal", [True, False])
def test_it_fits_in_100_columns_also_on_a_wide_screen(result: SuiteResult, terminal: bool) -> None:
    assert max(len(line.rstrip()) for line in printed(result, width=240, terminal=terminal).splitlines()) <= 100


def test_narrow_terminal_keeps_the_names_and_leaves_out_the_last_columns(result: SuiteResult) -> None:
    text = printed(result, width=80, terminal=True)
    assert max(len(line.rstrip()) for line in text.splitlines()) <= 80
    assert " ".join(rows(text)["scenario"]) == "scenario success pass@2 n failed truncated reward"
    assert "twice" in rows(text)


def test_plain_where_there_is_no_terminal(result: SuiteResult) -> None:
    assert printed(result).isascii()
    assert not printed(result, terminal=True).isascii()
