"""Which of an objective's choices make it biased: each is put alone into an unbiased method and measured there.

What comes in: a spec. What goes out: sentences. A choice that cannot stand alone (a spread among the peers of a state
wants a baseline among them) takes along what it needs. The words come from what components declare.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from agentrl.errors import ConfigError
from agentrl.objective.audit.compare import compare
from agentrl.objective.audit.draws import Setting
from agentrl.objective.audit.scoring import CriticKind
from agentrl.objective.audit.verdict import Verdict, judge
from agentrl.objective.component import describe
from agentrl.objective.loading import load_spec
from agentrl.objective.spec import SLOTS, ObjectiveSpec


@dataclass(frozen=True)
class Blame:
    """Measures pieces in `settings`, each once."""

    settings: Sequence[Setting]
    critic: CriticKind = "exact"
    _known: dict[ObjectiveSpec, bool] = field(default_factory=dict)

    def causes(self, spec: ObjectiveSpec) -> list[str]:
        """What makes a biased objective biased, one choice a text."""
        found = [*self._reward_side(spec), *self._trajectory_side(spec)]
        return list(dict.fromkeys(found)) or ["no choice is biased alone: it is how they go together"]

    def _reward_side(self, spec: ObjectiveSpec) -> Iterator[str]:
        for shape in spec.shape:
            if shape.scope != "none":
                yield f"{called('shape', shape)} makes the reward depend on the peers"
        alone = self._with(spec, credit=spec.credit, baseline=load_spec("reinforce", {"baseline": "none"}).baseline)
        fair = not self.biased(alone)
        if not fair:
            yield _of_credit(spec, self.critic)
        credit = spec.credit if fair else BASE.credit
        if self.biased(self._with(spec, credit=credit, baseline=spec.baseline)):
            yield _of_baseline(spec)
        if self.biased(self._with_scale(spec)):
            yield _of_scale(spec)
        for term in spec.terms:
            if self.biased(self._with(spec, terms=(term,))):
                yield f"{called('terms', term)} adds an advantage that is not J's"

    def _trajectory_side(self, spec: ObjectiveSpec) -> Iterator[str]:
        for each in spec.filters:
            if self.biased(self._with(spec, filters=(each,))):
                yield f"{called('filters', each)} leaves samples out by what came of them"
        sided = {"anchor": spec.anchor, "ratio": spec.ratio, "gate": spec.gate, "mismatch": spec.mismatch}
        together = self._with(spec, **sided, aggregate=spec.aggregate)
        if not self.biased(together):
            return
        if (spec.ratio.of_sequence or spec.gate.of_sequence) and not spec.gate.detaches:
            yield f"{called('ratio', spec.ratio)} with {called('gate', spec.gate)} weighs a trajectory by its length"
            return
        if self.biased(self._with(spec, aggregate=spec.aggregate)):
            yield _of_aggregate(spec)
        if self.biased(self._with(spec, **sided)):
            yield f"{called('gate', spec.gate)} on {called('ratio', spec.ratio)} cuts or weighs samples unevenly"

    def _with_scale(self, spec: ObjectiveSpec) -> ObjectiveSpec:
        try:
            return self._with(spec, scale=spec.scale)
        except ConfigError:
            return self._with(spec, credit=spec.credit, baseline=spec.baseline, scale=spec.scale)

    def _with(self, spec: ObjectiveSpec, **choices: Any) -> ObjectiveSpec:
        """The unbiased method with these choices, and with the critic that they read."""
        credit, baseline = choices.get("credit", BASE.credit), choices.get("baseline", BASE.baseline)
        critic = spec.critic if credit.needs_values or baseline.needs_values else BASE.critic
        return replace(BASE, **choices, critic=critic)

    def biased(self, spec: ObjectiveSpec) -> bool:
        """Whether the audit finds a spec biased."""
        if spec not in self._known:
            self._known[spec] = judge(compare(spec, self.settings, critic=self.critic)) is Verdict.BIASED
        return self._known[spec]


BASE = load_spec("rloo", {"ratio": "token", "kl_in_reward": []})  # unbiased, and right after the first update as well


def called(slot: str, component: Any) -> str:
    """How a component stands in a preset, as `slot name`."""
    known = type(component) in SLOTS[slot].values()
    return f"{slot} {describe(component, SLOTS[slot])['name'] if known else type(component).__name__}"


def off_policy_causes(spec: ObjectiveSpec) -> Iterator[str]:
    """Why it does not make up for a sampler that is another policy, from what its components declare."""
    correcting = [m for m in spec.mismatch if m.corrects_sampler]
    if not spec.anchor.of_sampler and not correcting:
        yield "nothing weighs the samples by pi / mu"
    elif not (spec.ratio.of_sequence if spec.anchor.of_sampler else any(m.whole for m in correcting)):
        yield "each token is weighed by its own pi / mu, and the tokens before it stay the sampler's"
    else:
        yield "the weights pi / mu of trajectories are capped, masked or averaged over tokens"


def _of_credit(spec: ObjectiveSpec, critic: CriticKind) -> str:
    name, parameters = called("credit", spec.credit), asdict(spec.credit)
    reasons = [f"discounts by {key} {value:g}" for key, value in parameters.items() if "gamma" in key and value < 1]
    if spec.credit.parts != "all":
        reasons.append(f"counts {spec.credit.parts} parts only")
    if spec.credit.needs_values and critic == "wrong":
        reasons.append("trusts a critic that errs")
    return f"{name} {' and '.join(reasons) or 'is not the return that J sums'}"


def _of_baseline(spec: ObjectiveSpec) -> str:
    return (
        f"{called('baseline', spec.baseline)} depends on the return that it is taken off, or drops turns without peers"
    )


def _of_scale(spec: ObjectiveSpec) -> str:
    return f"{called('scale', spec.scale)} divides by a statistic of the same rewards"


def _of_aggregate(spec: ObjectiveSpec) -> str:
    name = called("aggregate", spec.aggregate)
    if spec.aggregate.averages_tokens:
        return f"{name} lets a token of a long trajectory count less"
    return f"{name} divides by a number of tokens that the policy decides"
