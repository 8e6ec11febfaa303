"""Copying weights into a model in place.

What comes in: a model and pairs of a name and a tensor. What goes out: the model's own tensors, overwritten; either all
of them or none. Knows no engine and no learner.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch


def copy_weights(model: torch.nn.Module, named_tensors: Iterable[tuple[str, torch.Tensor]]) -> None:
    """Overwrite the model's parameters, and its stored buffers where given, by name.

    Every parameter must be given; one that has two names (tied weights) under either of them.

    Raises:
        ValueError: a name is missing or unknown, or a shape differs. Nothing was copied then.
    """
    given = dict(named_tensors)
    targets = model.state_dict(keep_vars=True)
    problems = _problems(model, given, targets)
    if problems:
        raise ValueError("; ".join(problems))
    for name, tensor in given.items():
        targets[name].copy_(tensor)


def _problems(model: torch.nn.Module, given: dict[str, torch.Tensor], targets: dict[str, torch.Tensor]) -> list[str]:
    reached = {id(targets[name]) for name in given if name in targets}
    missing = [name for name, parameter in model.named_parameters() if id(parameter) not in reached]
    unknown = [name for name in given if name not in targets]
    shapes = [
        f"{name} has shape {tuple(tensor.shape)}, wanted {tuple(targets[name].shape)}"
        for name, tensor in given.items()
        if name in targets and tensor.shape != targets[name].shape
    ]
    problems = []
    for what, names in (("missing", missing), ("unknown to the model", unknown), ("of the wrong shape", shapes)):
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            problems.append(f"{len(names)} {what}: {', '.join(names[:3])}{more}")
    return problems
