"""What runs find loaded when they begin: named sets, or modules of one's own.

In: the name of a set, or names of modules. Out: names of modules, and a program that makes them load what they load
late: a module that is only imported is not warm. Both are for a worker, which does it once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Preload:
    modules: tuple[str, ...] = ()
    warm: str = ""  # a program that is run once after the imports


_SCIENTIFIC = """
import numpy, sympy
a = numpy.arange(9.0).reshape(3, 3) + numpy.eye(3)
numpy.linalg.solve(a, a @ a), numpy.linalg.eigh(a + a.T), numpy.fft.fft(a), repr(a)
numpy.random.default_rng(0).normal(size=3)
x, y = sympy.symbols("x y")
str(sympy.expand((x + y) ** 3)), str(sympy.factor(x**2 - 1)), str(sympy.simplify(sympy.sin(x) ** 2 + sympy.cos(x) ** 2))
str(sympy.solve(x**2 - 2, x)), str(sympy.diff(sympy.exp(x * y), x)), str(sympy.integrate(x * sympy.exp(x), x))
str(sympy.limit(sympy.sin(x) / x, x, 0)), str(sympy.series(sympy.exp(x), x, 0, 4)), sympy.latex(sympy.sqrt(x) / 2)
sympy.Rational("1/3") + 1, sympy.pi.evalf(30), sympy.factorint(360), sympy.Matrix([[1, 2], [3, 4]]).inv()
sympy.isprime(97)
str(sympy.sympify("2*x + 1")), str(sympy.sqrt(8)), str(sympy.solve([x + y - 3, x - y - 1], [x, y]))
"""

SETS: Mapping[str, Preload] = {
    "bare": Preload(),
    "scientific": Preload(("numpy", "sympy"), _SCIENTIFIC),
}


def as_preload(wanted: str | Sequence[str], warm: str = "") -> Preload:
    """`wanted`: a set's name, or modules. `warm` is run after the set's own. Raises ValueError for an unknown set."""
    if isinstance(wanted, str):
        if wanted not in SETS:
            raise ValueError(
                f"{wanted!r} is no preload set; there are: {', '.join(SETS)}. For a module of that name: [{wanted!r}]"
            )
        return Preload(SETS[wanted].modules, "\n".join(part for part in (SETS[wanted].warm, warm) if part))
    return Preload(tuple(wanted), warm)
