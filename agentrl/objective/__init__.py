"""The two sides of the objective, as pure functions on arrays. Knows no env, engine or model; imports no torch."""

from agentrl.objective.batch import Batch, Credited, Scores
from agentrl.objective.loading import load_spec, preset_names
from agentrl.objective.objective import Objective
from agentrl.objective.spec import ObjectiveSpec
from agentrl.objective.trajectory_side.inputs import LossInputs, LossOutput

__all__ = [
    "Batch",
    "Credited",
    "LossInputs",
    "LossOutput",
    "Objective",
    "ObjectiveSpec",
    "Scores",
    "load_spec",
    "preset_names",
]
