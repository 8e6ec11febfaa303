"""What a run finds installed, by the environment of the interpreter that started it, and loaded, by `preload`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from agentrl.sandbox import SyncSandboxPool
from agentrl.sandbox.preload import SETS, as_preload
from tests.sandbox.attack import REPOSITORY

SCRIPT = """
from agentrl.sandbox import SyncSandboxPool
with SyncSandboxPool(tier={tier!r}, workers=1, preload=["behind"]) as pool:
    print(pool.run("import behind; print(behind.VALUE)"))
    print(pool.run("import project"))
"""


@pytest.mark.parametrize("tier", ["zygote", "landlock"])
def test_packages_of_an_environment_behind_ones_own_are_found_and_projects_are_not(tier: str, tmp_path: Path) -> None:
    behind, project = tmp_path / "lower" / "site-packages", tmp_path / "project"
    for folder, module in ((behind, "behind"), (project, "project")):
        folder.mkdir(parents=True)
        (folder / f"{module}.py").write_text("VALUE = 'found'")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "upper"], check=True, timeout=120)
    packages = next((tmp_path / "upper").glob("lib/python*/site-packages"))
    (packages / "layer.pth").write_text(f"{behind}\n{project}\n{REPOSITORY}\n")
    said = subprocess.run(
        [tmp_path / "upper/bin/python", "-c", SCRIPT.format(tier=tier)], capture_output=True, text=True, timeout=120
    )
    if "TierUnavailable" in said.stderr and "No module named" not in said.stderr:
        pytest.skip(said.stderr.splitlines()[-1])
    found, hidden = said.stdout.splitlines()
    assert "status='ok'" in found
    assert "stdout='found\\n'" in found
    assert "status='error'" in hidden
    assert "No module named" in hidden


def test_the_scientific_set_is_loaded_and_was_used() -> None:
    code = """
import sys
print({"numpy", "sympy", "sympy.integrals.manualintegrate", "numpy.fft"} <= set(sys.modules))
import numpy, sympy
x = sympy.Symbol("x")
print(sympy.integrate(2 * x, x), numpy.ones(2).sum())
"""
    with SyncSandboxPool(workers=1, preload="scientific") as pool:
        result = pool.run(code)
    assert (result.status, result.stdout) == ("ok", "True\nx**2 2.0\n"), result


def test_a_text_is_a_sets_name_and_no_module() -> None:
    assert as_preload("bare") == as_preload([])
    assert as_preload(["numpy"], "1").warm == "1"
    assert as_preload("scientific", "print()").warm == SETS["scientific"].warm + "\nprint()"
    with pytest.raises(ValueError, match=r"'numpy' is no preload set; there are: bare, scientific. .* \['numpy'\]"):
        SyncSandboxPool(preload="numpy")
