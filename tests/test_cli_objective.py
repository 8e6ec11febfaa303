"""`agentrl objective`: what is printed where, exit codes, and errors on one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agentrl.cli import main
from agentrl.objective import preset_names
from agentrl.objective.catalogue import unbuilt_methods


def printed(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    assert main(["objective", *argv]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return out


def refused(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    capsys.readouterr()
    try:
        code = main(["objective", *argv])
    except SystemExit as stop:  # argparse's way
        code = stop.code
    out, err = capsys.readouterr()
    assert code == 2
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    return err


def test_explain(capsys):
    out = printed(capsys, "explain", "gigpo")
    for said in (
        "Group in group",
        "A_t = (R_i - mean_g)",
        "arXiv 2505.10978",
        "audit:     biased",
        "needs:     groups",
        "needs:     state ids",
        "inside: it optimises E[R]",
    ):
        assert said in out
    (line,) = [line for line in out.splitlines() if line.startswith("terms")]
    assert line.split()[:3] == ["terms", "reward", "anchor_state"]


def test_explain_with_a_critic_gives_the_verdict_of_both(capsys):
    out = printed(capsys, "explain", "ppo")
    assert "audit:     with an exact critic: biased" in out
    assert "audit:     with a wrong critic: biased" in out


def test_explain_against_prints_the_slots_that_differ_and_no_other(capsys):
    out = printed(capsys, "explain", "dapo", "--against", "grpo")
    table = out.partition("the slots that differ\n")[2].splitlines()
    assert [line.split()[0] for line in table] == ["slot", "filters", "shape", "gate", "regularize", "aggregate"]
    assert "clip low=0.2 high=0.28" in out
    assert "every slot is the same" in printed(capsys, "explain", "grpo", "--against", "grpo")


def test_explain_as_json(capsys):
    told = json.loads(printed(capsys, "explain", "rloo", "--json", "-"))
    assert told["name"] == "rloo"
    assert told["audit"][0]["verdict"] == "unbiased"
    (scale,) = [c for c in told["choices"] if c["slot"] == "scale"]
    assert (scale["side"], scale["name"], scale["parameters"]) == ("reward", "none", {})
    told = json.loads(printed(capsys, "explain", "rloo", "--against", "grpo", "--json", "-"))
    assert told["against"] == "grpo"
    (scale,) = [d for d in told["differences"] if d["slot"] == "scale"]
    assert [c["name"] for c in scale["rloo"] + scale["grpo"]] == ["none", "group_std"]


def test_explain_of_a_file_of_one_s_own(capsys, tmp_path: Path):
    own = tmp_path / "mine.toml"
    own.write_text(
        'name = "mine"\ntitle = "A method"\nformula = "A = R"\nside = "reward"\naddresses = "nothing"\nsource = "me"\n'
        'in_frame = true\ncredit = "outcome_broadcast"\nbaseline = "leave_one_out"\nratio = "none"\ngate = "none"\n'
        'aggregate = "seq_mean_token_sum"\n'
    )
    out = printed(capsys, "explain", str(own))
    assert "mine: A method" in out
    assert "audit:" not in out
    assert "unbiased" in printed(capsys, "audit", str(own), "--group-size", "2")


def test_explain_of_a_method_that_is_not_built(capsys):
    method = unbuilt_methods()[0]
    out = printed(capsys, "explain", method.name)
    assert f"it needs {method.needs}" in out
    assert json.loads(printed(capsys, "explain", method.name, "--json", "-"))["needs"] == method.needs


def test_list_has_every_preset_once_and_every_unbuilt_method(capsys):
    told = json.loads(printed(capsys, "list", "--json", "-"))
    assert sorted(p["name"] for p in told["presets"]) == preset_names()
    assert [m["name"] for m in told["unbuilt"]] == [m.name for m in unbuilt_methods()]
    out = printed(capsys, "list")
    assert all(p["title"] in out for p in told["presets"])
    assert "not built" in out


def test_audit(capsys, tmp_path: Path):
    numbers = tmp_path / "audit.json"
    out = printed(capsys, "audit", "rloo", "grpo", "sft", "--group-size", "2", "--json", str(numbers))
    verdicts = {line.split()[0]: line for line in out.splitlines()[2:]}
    assert verdicts["rloo"].split()[1:5] == ["unbiased", "0", "1.000", "1.00"]
    assert "biased" in verdicts["grpo"]
    assert "scale group_std" in verdicts["grpo"]
    assert "another objective" in verdicts["sft"]
    table = json.loads(numbers.read_text())["presets"]
    assert table["settings"] == ["errand, G = 2", "detour, G = 2", "easy and hard, G = 2"]
    assert [row["verdict"] for row in table["rows"]] == ["unbiased", "biased", "another objective"]


def test_audit_with_a_slot_changed_and_off_policy(capsys):
    argv = ("audit", "rloo", "--group-size", "2", "--markdown", "--set", "baseline=group_mean")
    out = printed(capsys, *argv)
    assert "Settings: errand, G = 2; detour, G = 2; easy and hard, G = 2." in out
    assert "| rloo baseline=group_mean | **scaled** | 0 0 0 |" in out
    assert "nothing weighs the samples by pi / mu" in printed(capsys, *argv, "--off-policy")


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (("explain", "grop"), "did you mean 'grpo'?"),
        (("explain", "grpo", "--against", "rlo"), "did you mean 'rloo'?"),
        (("explain",), "PRESET"),
        ((), "COMMAND"),
        (("audit", "grop"), "did you mean 'grpo'?"),
        (("audit", "grpo", "--set", "gate=clp"), "did you mean 'clip'?"),
        (("audit", "grpo", "--set", "scale"), "has no '='"),
        (("audit", "grpo", "--group-size", "9"), "wanted a whole number from 2 to 5"),
        (("audit", "grpo", "--markdown", "--json", "-"), "give --json a path"),
        (("audit", "rloo", "--set", "credit=tree", "--group-size", "2"), "branches"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(capsys, argv, said):
    assert said in refused(capsys, *argv)
