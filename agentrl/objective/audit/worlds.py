"""The decision processes that estimators are audited on.

`ERRAND`: one to three turns of one to three tokens. The policy decides when to stop; looking first is better than
guessing; one state is reached by five histories, at two turn indices; process rewards stand beside the outcome; the
environment answers by chance. Every return is in [0, 1], as some estimators want. `DETOUR`: two
to five turns; one state is reached at three turn indices. `EASY` and `HARD`: two tasks of one shape, one solved more
often than the other. `SEARCH`: a limit of three turns that the environment's state ids do not tell, so that equal ids
do not mean equal futures and a trajectory meets one id again.
"""

from __future__ import annotations

from agentrl.objective.audit.world import Action, Answer, World

ERRAND = World(
    "errand",
    "start",
    {
        "start": (
            Action((1,), (Answer(0.25, None, correct=0.7), Answer(0.75, None))),  # guess, and be done
            Action((2,), (Answer(0.5, "knows", step=0.1), Answer(0.5, "lost", step=0.1, observed=2))),
            Action((3, 4), (Answer(0.8, "knows", step=0.3), Answer(0.2, "lost", step=0.3, rewrites=True))),
            Action((3, 5), (Answer(1.0, "lost", step=0.2, observed=3),), void=True),
        ),
        "knows": (
            Action((6,), (Answer(1.0, None, correct=0.7),)),
            Action((7, 8, 9), (Answer(1.0, None, truncated=True),)),
        ),
        "lost": (
            Action((6,), (Answer(1.0, None, correct=0.2),)),
            Action((2, 10), (Answer(1.0, "knows", step=-0.1, rewrites=True),)),
        ),
    },
)


def _lookup(guess: float, careless: float) -> dict[str, tuple[Action, ...]]:
    """States of a task: the chance that a guess is right, and what a careless answer earns."""
    return {
        "start": (
            Action((1,), (Answer(guess, None, correct=0.7), Answer(1 - guess, None))),
            Action((2,), (Answer(1.0, "seen", step=0.1),)),
            Action((3, 4), (Answer(1.0, "seen", step=0.3, observed=2),)),
        ),
        "seen": (
            Action((5,), (Answer(1.0, None, correct=careless),)),
            Action((6, 7), (Answer(1.0, None, correct=0.7),)),
        ),
    }


EASY = World("easy", "start", _lookup(0.8, 0.5))
HARD = World("hard", "start", _lookup(0.1, 0.0))

DETOUR = World(
    "detour",
    "start",
    {
        "start": (Action((1,), (Answer(1.0, "gate", step=0.1),)), Action((2, 3), (Answer(1.0, "path"),))),
        "path": (
            Action((4,), (Answer(0.6, "hill"), Answer(0.4, "gate", step=0.1))),
            Action((5, 6), (Answer(1.0, None, correct=0.3),)),
        ),
        "hill": (Action((4,), (Answer(1.0, "gate", step=0.1),)), Action((7,), (Answer(1.0, None),))),
        "gate": (Action((8,), (Answer(1.0, "house"),)), Action((9, 3), (Answer(1.0, None, correct=0.4),))),
        "house": (
            Action((6,), (Answer(1.0, None, correct=0.9),)),
            Action((7, 8, 9), (Answer(1.0, None, correct=0.1),)),
        ),
    },
)

_FOUND = (Action((4,), (Answer(1.0, None, correct=0.8),)), Action((5, 6), (Answer(1.0, None, correct=0.1),)))
_GUESS = Action((1,), (Answer(1.0, None, correct=0.2),))


def _look(left: int) -> tuple[Action, ...]:
    """Guess, or look once more, with so many looks left."""
    failed = Answer(0.5, f"searching {left - 1}") if left > 1 else Answer(0.5, None, truncated=True)
    return (_GUESS, Action((2, 3), (Answer(0.5, "found", step=0.1), failed)))


SEARCH = World(
    "search",
    "searching 3",
    {**{f"searching {left}": _look(left) for left in (3, 2, 1)}, "found": _FOUND},
    ids={f"searching {left}": "searching" for left in (3, 2, 1)},
)
