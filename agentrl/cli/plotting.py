"""`agentrl plot`: a run's learning curve as a PNG."""

from __future__ import annotations

import argparse
from pathlib import Path

from agentrl.train.plot import plot_run


def run(arguments: argparse.Namespace) -> int:
    out: Path = arguments.out or arguments.run / "learning_curve.png"
    print(plot_run(arguments.run, out))
    return 0
