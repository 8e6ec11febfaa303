"""Every differentiable component under autograd, in float64, against finite differences."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from agentrl.objective import Objective, load_spec, preset_names
from agentrl.objective.spec import SLOTS
from tests.objective.loss_play import COMPONENTS, SIDE, Step, draw_step, some_groups, stop_gradients, with_component
from tests.objective.loss_play import inputs_of as inputs_of_step

LEAVES = ("now", "entropies", "values")


def gradcheck(method: Objective, step: Step) -> bool:
    """The gradient by log-probs, entropies and values; what is detached stays as it was at the first call."""
    tape: list[torch.Tensor] = []

    def loss(*leaves: torch.Tensor) -> torch.Tensor:
        with stop_gradients(tape, replay=bool(tape)):
            return method.loss(inputs_of_step(method, step, **dict(zip(LEAVES, leaves, strict=True)))).loss

    leaves = tuple(torch.tensor(vars(step)[name], requires_grad=True) for name in LEAVES)
    loss(*leaves)
    return torch.autograd.gradcheck(loss, leaves, eps=1e-7, atol=1e-6)


def test_the_slots_of_the_side_are_all_here():
    reward_side = {"filters", "shape", "kl_in_reward", "credit", "baseline", "scale", "terms"}
    assert set(SIDE) == set(SLOTS) - reward_side


@pytest.mark.parametrize(("slot", "name"), COMPONENTS)
@pytest.mark.parametrize("gap", [0.01, 0.4])
def test_gradcheck_of_every_component(slot, name, gap):
    method = with_component(slot, name)
    assert gradcheck(method, draw_step(method, some_groups(1), 1, gap=gap))


@pytest.mark.parametrize("preset", preset_names())
def test_gradcheck_of_every_preset(preset):
    method = Objective(load_spec(preset))
    assert gradcheck(method, draw_step(method, some_groups(2), 2, gap=0.2))


def test_a_stop_gradient_that_is_not_held_fixed_is_seen():
    method = with_component("gate", "detached_clip")
    step = draw_step(method, some_groups(1), 1)

    def loss(x: torch.Tensor) -> torch.Tensor:
        return method.loss(inputs_of_step(method, step, now=x)).loss

    leaf = torch.tensor(step.now, requires_grad=True)
    assert not torch.autograd.gradcheck(loss, leaf, eps=1e-7, atol=1e-6, raise_exception=False)


def test_a_component_without_a_gradient_would_be_seen():
    """The step reaches every gate's and penalty's active part, so that gradcheck compares something."""
    for slot, name in COMPONENTS:
        method = with_component(slot, name)
        step = draw_step(method, some_groups(1), 1, gap=0.4)
        leaves = {leaf: torch.tensor(vars(step)[leaf], requires_grad=True) for leaf in LEAVES}
        method.loss(inputs_of_step(method, step, **leaves)).loss.backward()
        assert np.abs(leaves["now"].grad.numpy()).max() > 1e-3, (slot, name)
        reads_entropy = name in ("entropy", "adaptive_entropy")
        assert (leaves["entropies"].grad is not None and bool(leaves["entropies"].grad.any())) == reads_entropy
        has_critic = slot == "critic" and name != "none"
        assert (leaves["values"].grad is not None and bool(leaves["values"].grad.any())) == has_critic
