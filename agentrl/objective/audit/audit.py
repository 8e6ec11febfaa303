"""The audit of one objective: is its expected gradient the true one, how much does it vary, and why?

What comes in: a spec. What goes out: a `Row` with the verdict, the numbers of each setting and one sentence. An
objective with a critic has two: with one whose values are exact, and with one that errs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from agentrl.objective.audit.blame import Blame, off_policy_causes
from agentrl.objective.audit.compare import compare
from agentrl.objective.audit.draws import Setting
from agentrl.objective.audit.scoring import CriticKind
from agentrl.objective.audit.settings import standard
from agentrl.objective.audit.verdict import Finding, Verdict, judge
from agentrl.objective.spec import ObjectiveSpec


@dataclass(frozen=True, slots=True)
class Row:
    """What the audit says about one objective."""

    name: str
    critic: CriticKind | None  # whose values it read; None: nobody's
    verdict: Verdict
    findings: tuple[Finding, ...]  # one a setting; none where there is no verdict
    why: str

    @property
    def label(self) -> str:
        """The name, and whose values were read."""
        return f"{self.name}, {self.critic} critic" if self.critic else self.name


@dataclass(frozen=True)
class Auditor:
    """Audits in the same settings, whose batches are made once."""

    sizes: Sequence[int] = (2, 3)
    off_policy: bool = False
    settings: tuple[Setting, ...] = ()  # empty: the standard ones
    find_causes: bool = True  # measure which choices make a biased one biased
    _blames: dict[CriticKind, Blame] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if not self.settings:
            object.__setattr__(self, "settings", standard(self.sizes, off_policy=self.off_policy))

    def audit(self, name: str, spec: ObjectiveSpec) -> list[Row]:
        """The rows of one objective, under this name."""
        outside = outside_of_the_frame(spec)
        if outside is not None:
            return [Row(name, None, Verdict.OTHER, (), outside)]
        if not spec.needs_values:
            return [self._row(name, spec, None)]
        return [self._row(name, spec, "exact"), self._row(name, spec, "wrong")]

    def _row(self, name: str, spec: ObjectiveSpec, critic: CriticKind | None) -> Row:
        found = compare(spec, self.settings, critic=critic or "exact")
        verdict = judge(found)
        return Row(name, critic, verdict, found, self._why(spec, verdict, found, critic or "exact"))

    def _why(self, spec: ObjectiveSpec, verdict: Verdict, found: Sequence[Finding], critic: CriticKind) -> str:
        if verdict is Verdict.UNBIASED:
            return "nothing taken off, weighed or dropped depends on the action that it is about"
        if verdict is Verdict.SCALED:
            return (
                f"only the step size differs: {', '.join(sorted({f'{f.scale:.3g}' for f in found}))} times the gradient"
            )
        if not self.find_causes:
            return ""
        blame = self._blame(critic)
        if not self.off_policy:
            return "; ".join(blame.causes(spec))
        return "; ".join([*off_policy_causes(spec), *(blame.causes(spec) if blame.biased(spec) else ())])

    def _blame(self, critic: CriticKind) -> Blame:
        """On-policy, and in few batches: it measures many specs."""
        if critic not in self._blames:
            self._blames[critic] = Blame(standard((min(self.sizes),)), critic)
        return self._blames[critic]


def outside_of_the_frame(spec: ObjectiveSpec) -> str | None:
    """Why there is no verdict; None: there is one."""
    if not spec.in_frame:
        return "it does not set out to maximise E[R] (in_frame = false)"
    if spec.needs_teacher:
        return "a teacher's log-probs stand beside the reward"
    return None
