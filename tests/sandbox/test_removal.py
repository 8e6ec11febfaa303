"""What runs leave in their folders goes, whatever they have made of them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agentrl.sandbox import SandboxPool
from agentrl.sandbox.jail.removal import remove

DEEP = "import os\nfor _ in range(5000):\n    os.mkdir('d'); os.chdir('d')\nprint('done')"


def deep(folder: Path, levels: int) -> None:
    here = os.open(folder, os.O_RDONLY)
    for level in range(levels):
        os.mkdir("d", dir_fd=here)
        os.close(os.open(f"file{level}", os.O_CREAT | os.O_WRONLY, dir_fd=here))
        here, before = os.open("d", os.O_RDONLY, dir_fd=here), here
        os.close(before)
    os.close(here)


def test_deep_locked_and_odd_things_go_and_links_are_not_followed(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "file").write_text("mine")
    folder = tmp_path / "run"
    folder.mkdir()
    deep(folder, 3000)
    (folder / "link").symlink_to(kept)
    (folder / "0").mkdir()  # a name that the removal would like to use
    (folder / "locked" / "inner").mkdir(parents=True)
    (folder / "locked" / "inner" / "file").write_text("x")
    os.mkfifo(folder / "fifo")
    os.mkdir(os.fsencode(folder) + b"/\xff\n")
    (folder / "locked" / "inner").chmod(0)
    (folder / "locked").chmod(0)
    remove(str(folder))
    assert not folder.exists()
    assert (kept / "file").read_text() == "mine"


def test_what_is_not_there_is_no_error(tmp_path: Path) -> None:
    remove(str(tmp_path / "nothing"))


async def test_a_run_that_nests_folders_leaves_nothing_and_the_pool_goes_on(
    tier: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    async with SandboxPool(tier=tier, minimum="landlock", workers=1) as pool:
        await pool.run(DEEP)
        assert (await pool.run("print(1)")).stdout == "1\n"
    assert os.listdir(tmp_path) == []
