"""Answer checking: is this response's answer the gold one?

`Verifier` is the door. Numbers and words are judged exactly and at once; LaTeX by math-verify, in worker processes that
are killed when they take too long. docs/verify.md has the rules.
"""

from agentrl.verify.limits import Limits
from agentrl.verify.verdict import GoldError, Judgement, Verdict
from agentrl.verify.verifier import Verifier

__all__ = ["GoldError", "Judgement", "Limits", "Verdict", "Verifier"]
