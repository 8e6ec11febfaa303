"""What a person sees of long work: a live display that survives any terminal, plain lines elsewhere."""

from __future__ import annotations

import io

import pytest

from agentrl.train.display import Display, PlainDisplay, RichDisplay, format_metrics, make_display
from agentrl.train.summary import RunSummary

SUMMARY: RunSummary = {
    "name": "calculator",
    "seed": 0,
    "engine": "hf",
    "run": "runs/calculator-seed0",
    "success": {
        "warmup": {"mean": 0.42, "low": 0.372, "high": 0.469, "n": 400},
        "end": {"mean": 0.9825, "low": 0.964, "high": 0.992, "n": 400},
    },
    "tool_share": {"warmup": 0.31, "end": 0.995},
    "wall_s": {"warmup": 41.2, "rollout": 120.0},
    "failures": {"failed_env": 2},
    "unsaved_steps": 3,
}


def show(display: Display, steps: int = 3) -> None:
    with display:
        display.stage("RL", steps)
        for step in range(1, steps + 1):
            display.advance(step, {"loss": -0.01234, "reward": 0.5, "tool_share": 0.25, "tokens": 12345.0, "other": 1})
        display.note("half-way [bold]")
        display.finish(SUMMARY)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_plain_lines_where_stdout_is_no_terminal() -> None:
    stream = io.StringIO()
    display = make_display(stream)
    assert isinstance(display, PlainDisplay)
    show(display)
    lines = stream.getvalue().splitlines()
    assert "\x1b" not in stream.getvalue()
    assert lines[0] == "RL: 3 steps"
    assert lines[1].startswith("RL 1/3 loss=-0.0123 reward=0.5 tool=0.25 tokens=12345 elapsed=")
    assert "half-way [bold]" in lines
    assert ["after", "warm-up", "0.420", "[0.372,", "0.469]", "400", "31%"] in [line.split() for line in lines]
    assert ["after", "RL", "0.983", "[0.964,", "0.992]", "400", "100%"] in [line.split() for line in lines]
    assert "failed episodes: 2 failed_env" in lines
    assert "steps whose trajectories could not be written: 3" in lines
    assert any("agentrl eval SUITE --policy runs/calculator-seed0" in line for line in lines)
    assert any("warmup 41.2 s, rollout 120.0 s; 161.2 s in all" in line for line in lines)


@pytest.mark.parametrize("width", [1, 8, 20, 80, 200])
def test_live_display_at_any_width(width: int) -> None:
    stream = Terminal()
    show(RichDisplay(stream, width=width), steps=40)
    text = stream.getvalue()
    assert "half-way [bold]" in text.replace("\n", "")
    assert "next: agentrl eval SUITE --policy runs/calculator-seed0" in text
    assert text.count("-0.0123") >= 20 or width < 80  # a row every second step


def test_live_display_on_a_terminal() -> None:
    assert isinstance(make_display(Terminal()), RichDisplay)


def test_live_display_restores_the_cursor_after_an_error() -> None:
    stream = Terminal()

    def fail() -> None:
        with RichDisplay(stream, width=80) as display:
            display.stage("RL", 3)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert stream.getvalue().rindex("\x1b[?25h") > stream.getvalue().rindex("\x1b[?25l")


def test_only_known_metrics_are_shown_in_order() -> None:
    assert list(format_metrics({"reward": 1.0, "zzz": 2.0, "loss": 0.5})) == ["loss", "reward"]
