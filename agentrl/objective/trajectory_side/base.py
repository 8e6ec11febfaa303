"""What a component of each slot of the trajectory side is.

What comes in and goes out stands at each call; all tensors are those of one micro-batch, [A] loss tokens. The class
variables declare what a component reads and does; the rules in `soundness` ask for them, never for names.

`whole` says that a component mixes the tokens of a trajectory, so that all of them must be in one micro-batch. What
needs the whole step (a quantile, a random choice, a fact about trajectories) is made before the step is cut, by
`columns`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from agentrl.objective.batch import Batch, Float64Array, Scores
from agentrl.objective.reward_side.levels import Leveled
from agentrl.objective.trajectory_side.inputs import LossInputs
from agentrl.trajectory import BoolArray, FloatArray, Group, IntArray

if TYPE_CHECKING:
    from torch import Tensor


class Prepares:
    """A component that may read the whole step before it is cut into micro-batches."""

    needs_logprobs: ClassVar[bool] = False  # `columns` reads the log-probs at the step's start
    column: ClassVar[str] = ""  # the name of what `columns` prepares

    def columns(self, batch: Batch, scores: Scores, advantages: Float64Array) -> Mapping[str, FloatArray]:
        """[N] each: numbers at tokens that stand in `LossInputs.columns` under these names."""
        return {}


class GroupFilter(ABC):
    """Slot `filters`: which groups, or which of their trajectories, count at all."""

    needs_groups: ClassVar[bool] = False  # drops whatever has no peers
    compares_groups: ClassVar[bool] = False  # what it keeps of one group depends on the others

    @property
    def refill(self) -> int:
        """Most groups that are to be played in one step for those that it drops, in multiples of the step's."""
        return 0

    @abstractmethod
    def keep(self, groups: Sequence[Group]) -> list[Group]:
        """The groups that stay."""


class TokenFilter(ABC):
    """Slot `filters`: which tokens are trained on; their rewards stay in the statistics."""

    needs_groups: ClassVar[bool] = False

    @abstractmethod
    def mask(self, batch: Batch) -> BoolArray:
        """[N] the tokens that stay in the loss."""


class Anchor(ABC):
    """Slot `anchor`: the policy that the ratio compares with."""

    of_sampler: ClassVar[bool]  # the ratio then corrects for the sampler's own numbers

    @abstractmethod
    def __call__(self, inputs: LossInputs) -> Tensor:
        """[A] log-probs, nats, without gradient."""


class Ratio(ABC):
    """Slot `ratio`: how much likelier the new policy makes what was sampled; carries the policy's gradient."""

    corrects: ClassVar[bool] = True  # stays right when the policy has moved since the step began
    per: ClassVar[Literal["token", "turn", "sequence"]] = "token"  # what one ratio is taken over
    of_sequence: ClassVar[bool] = False  # one number a trajectory, for one advantage a trajectory
    is_product: ClassVar[bool] = False  # the importance weight of a whole trajectory, each token's gradient in full
    whole: ClassVar[bool] = False

    @abstractmethod
    def __call__(self, inputs: LossInputs, anchor: Tensor) -> Tensor:
        """[A]"""


@dataclass(frozen=True, slots=True)
class Gated:
    """What a gate makes of ratio and advantage."""

    loss: Tensor  # [A] to be minimised
    cut: Tensor  # [A] bool: no gradient passes


class Gate(Prepares, ABC):
    """Slot `gate`: how far a sample may push."""

    needs_ratio: ClassVar[bool] = True  # bounds a ratio, so there must be one
    of_tokens: ClassVar[bool] = False  # wants the ratio of each token, whatever it makes of them
    of_sequence: ClassVar[bool] = False  # one loss a trajectory, for one advantage a trajectory
    of_products: ClassVar[bool] = False  # wants the importance weight of the whole trajectory
    detaches: ClassVar[bool] = False  # the ratio only weighs: the gradient is each token's own, -w A grad log pi(a_t)
    whole: ClassVar[bool] = False

    @abstractmethod
    def __call__(self, inputs: LossInputs, ratio: Tensor) -> Gated: ...


class Mismatch(Prepares, ABC):
    """Slot `mismatch`: a factor on the policy loss, without gradient, for tokens that are not of the current policy."""

    corrects_sampler: ClassVar[bool] = True  # weighs pi_old / mu, so the ratio must not do so as well
    whole: ClassVar[bool] = False

    @abstractmethod
    def __call__(self, inputs: LossInputs) -> Tensor:
        """[A]"""


class Regularizer(Prepares, ABC):
    """Slot `regularize`: what is added to each token's loss beside the policy's."""

    needs_entropy: ClassVar[bool] = False  # reads `LossInputs.entropies` with their gradient
    whole: ClassVar[bool] = False

    @property
    def needs_reference(self) -> bool:
        return False

    @abstractmethod
    def __call__(self, inputs: LossInputs) -> Tensor | None:
        """[A] added to the loss; None: nothing is."""


class Aggregate(ABC):
    """Slot `aggregate`: how tokens' losses become one number, as weights that are fixed before the update is cut."""

    averages_tokens: ClassVar[bool]  # a trajectory's weights sum to the same, whatever its length

    @abstractmethod
    def __call__(self, batch: Batch, counts: IntArray) -> Leveled:
        """The weight of each loss token.

        Args:
            counts: [T] loss tokens of each trajectory that takes part; 0 where it does not
        """


class Critic(ABC):
    """Slot `critic`: who predicts returns, what it learns and how."""

    kind: ClassVar[str]  # "none"; "token": at every action token; "turn": at a turn's first one

    @property
    def discount(self) -> float:
        """What a step discounts the returns after it by."""
        return 1.0

    @abstractmethod
    def targets(self, batch: Batch, scores: Scores, rewards: Float64Array) -> FloatArray | None:
        """[N] returns to predict, NaN where it is not asked; `rewards`: [A] at action tokens, as credited."""

    @abstractmethod
    def loss(self, inputs: LossInputs) -> Tensor | None:
        """[A] added to each token's loss."""
