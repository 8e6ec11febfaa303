"""Answers that hang, exhaust or confuse checkers: each with a name, a gold answer and a response.

What comes in: nothing. What goes out: `HOSTILE`, for tests and benchmarks. Those in `SYMBOLIC` are over no cap, but for
a few, so that a worker meets them.
"""

from __future__ import annotations

from collections.abc import Mapping


def box(text: str) -> str:
    return f"\\boxed{{{text}}}"


def nested(opening: str, inside: str, closing: str, times: int) -> str:
    return opening * times + inside + closing * times


_GOLD = "2\\pi"

SYMBOLIC: Mapping[str, tuple[str, str]] = {
    name: (gold, box(answer))
    for name, (gold, answer) in {
        "tower": (_GOLD, "9^{(4+5)^{(4+5)^{9}}}"),
        "tower against itself": ("9^{(4+5)^{(4+5)^{9}}}", "9^{(4+5)^{(4+5)^{9}}}"),
        "tower less one": (_GOLD, "7^{(3+4)^{(3+4)^{7}}} - 1"),
        "tower of sums": (_GOLD, "(1+9^{(4+5)^{9}})^{(4+5)^{9}}"),
        "tower, negative": (_GOLD, "9^{-(4+5)^{(4+5)^{9}}}"),
        "tower, modulo": (_GOLD, "9^{(4+5)^{(4+5)^{9}}} \\mod 7"),
        "tower under a root": (_GOLD, "\\sqrt{9^{(4+5)^{(4+5)^{9}}}}"),
        "tower in a logarithm": (_GOLD, "\\log(9^{(4+5)^{(4+5)^{9}}})"),
        "tower in a sine": (_GOLD, "\\sin(9^{(4+5)^{(4+5)^{9}}})"),
        "towers in a set": ("\\{1,2\\}", "\\{9^{(4+5)^{(4+5)^{9}}}, 8^{(4+4)^{(4+4)^{8}}}\\}"),
        "tower of fractions": (_GOLD, "\\left(\\frac{3}{2}\\right)^{(4+5)^{(4+5)^{9}}}"),
        "issue 65 of math-verify": (
            _GOLD, "\\dfrac{5^{\\left(5^{\\left(5^{\\left(5^5\\right)}\\right)} - 4\\right)} - 5}{16}",
        ),
        "factorial of a factorial": (_GOLD, "((999!)!)!"),
        "factorial of a power": (_GOLD, "(10^{8+1})!"),
        "factorials of a product": (_GOLD, "(100 \\cdot 1000 \\cdot 1000)!"),
        "double factorials": (_GOLD, "((99!)!)!-1"),
        "binomial of powers": (_GOLD, "\\binom{100 \\cdot 100 \\cdot 100 \\cdot 100}{50^4}"),
        "long sum": (_GOLD, "\\sum_{k=1}^{99999999} \\frac{1}{k^3+k+1}"),
        "endless sum": (_GOLD, "\\sum_{k=1}^{\\infty} \\frac{\\sin(k^2)}{k!+k}"),
        "product of sums": (_GOLD, "\\prod_{k=1}^{99999} \\sum_{j=1}^{99999} (j+k^2)"),
        "odd integral": (_GOLD, "\\int_0^{\\infty} \\frac{\\sin(x^3+1)}{e^{x^2}+x} dx"),
        "integral of a tower": (_GOLD, "\\int_0^1 x^{x^{x}} dx"),
        "double integral": (_GOLD, "\\int_0^1 \\int_0^x \\frac{\\log(1+xy)}{1+x^2y^2} dy dx"),
        "limit": (_GOLD, "\\lim_{x \\to 0} \\frac{\\sin(\\tan x) - \\tan(\\sin x)}{x^7+x^{9}}"),
        "expanded power": ("1", "(a+b+c+d+e+f+g+h)^{60}"),
        "equal polynomials": ("(x+y+z)^{40}", "(z+y+x)^{39}(x+z+y)"),
        "nested roots": (_GOLD, nested("\\sqrt{1+", "2", "}", 18)),
        "nested absolute values": (_GOLD, nested("\\left|x-", "1", "\\right|", 14)),
        "trigonometry": (_GOLD, "+".join(f"\\sin({k}x)\\cos({k}y)\\tan({k}z)" for k in range(1, 25))),
        "radicals": (_GOLD, "+".join(f"\\sqrt{{{k}}}" for k in range(2, 60))),
        "radicals, denominator": (
            _GOLD, "\\frac{1}{" + "+".join(f"\\sqrt{{{k}}}" for k in (2, 3, 5, 7, 11, 13, 17)) + "}",
        ),
        "polynomial equation": ("x=1", "x^{97}+3x^{13}+7x+1=0"),
        "odd inequality": ("x<1", "\\sin(x)x^{5}+x^{4}+\\cos(x) < 3"),
        "large set": ("\\{1,2\\}", "\\{" + ",".join(f"\\sqrt{{{k}}}" for k in range(190)) + "\\}"),
        "large set against itself": ("\\{" + ",".join(f"{k}\\pi" for k in range(40)) + "\\}",) * 2,
        "union of intervals": ("[0,1]", "\\cup".join(f"[{2 * k},{2 * k + 1})" for k in range(60))),
        "large matrix": (
            "\\begin{pmatrix}1&2\\\\3&4\\end{pmatrix}",
            nested("\\begin{pmatrix}", "\\\\".join(["&".join(f"x^{i}" for i in range(9))] * 9), "\\end{pmatrix}", 1),
        ),
        "deep fraction": (_GOLD, nested("\\frac{1}{1+", "x", "}", 14)),
        "continued fraction": (_GOLD, nested("1+\\frac{1}{", "2", "}", 14)),
        "nested parentheses": (_GOLD, nested("(", "x", ")", 19)),
        "unbalanced": (_GOLD, "((((((((((x"),
        "zero in the denominator": (_GOLD, "\\frac{1}{0}"),
        "zero to the zero": (_GOLD, "0^0"),
        "infinity less infinity": (_GOLD, "\\infty - \\infty"),
        "not a number": (_GOLD, "nan"),
        "prime factors": (_GOLD, f"\\sqrt{{{2**251 - 9}}}"),
        "long product": (_GOLD, "\\cdot".join(["(x+1)"] * 150)),
    }.items()
}  # fmt: skip

CAPPED: Mapping[str, tuple[str, str]] = {
    name: ("24", answer)
    for name, answer in {
        "plain tower": box("9^{9^{9^{9}}}"),
        "plain tower less one": box("7^{7^{7^{7}}} - 1"),
        "tower with \\left": box("9^{\\left(9^{9}\\right)}"),
        "tower, stars": "#### 9**9**9**9",
        "plain factorial of a power": box("(10^{9})!"),
        "plain binomial of powers": box("\\binom{10^{8}}{5\\cdot10^{7}}"),
        "factorial": box("(1000000000)!"),
        "binomial": box("\\binom{100000000}{50000000}"),
        "exponent": box("2^{1000000000}"),
        "exponent, stars": "#### 2**1000000000",
        "exponent, scientific": "#### 1e999999999",
        "small exponent, scientific": "#### 1e-999999999",
        "times ten": "#### 5 \\times 10^{999999999}",
        "tower of eight": box("^".join("2" * 9)),
        "tower in braces": box(nested("2^{", "2", "}", 25)),
        "nested parentheses, 500": box(nested("(", "1", ")", 500)),
        "nested braces, 5000": box(nested("{", "1", "}", 3000)),
        "nested fractions, 500": box(nested("\\frac{1}{", "2", "}", 500)),
        "set of 3000": box("\\{" + ",".join(map(str, range(3000))) + "\\}"),
        "digits": "#### " + "9" * 100_000,
        "digits, 301": "#### " + "9" * 301,
        "decimals": "#### 0." + "3" * 5000,
        "zeros": "#### 24." + "0" * 1500,
        "commas": "#### " + "1," * 900,
        "grouped, then none": "#### " + "1" + ",000" * 120 + "x",
        "spaces": "#### 24" + " " * 100_000 + "x",
        "new lines": "#### 24" + "\n" * 100_000 + "x",
        "hashes": "#" * 1_000_000,
        "dollars": "$" * 1_000_000,
        "open boxes": "\\boxed{" * 100_000,
        "open brackets": "\\(" * 100_000,
        "closing braces": "\\boxed{24" + "}" * 100_000,
        "backslashes": "\\" * 1_000_000,
        "answers": "the answer is " * 50_000,
        "minus signs": "#### " + "-" * 1900 + "24",
        "slashes": "#### " + "1/" * 900 + "1",
        "points": "#### " + "1." * 900,
        "carets": "#### " + "1^" * 900 + "1",
        "integrals": box("\\int " * 300 + "x"),
        "no-break spaces": "#### 24" + "\u00a0" * 1900,
        "zero-width": "#### 2" + "\u200b" * 1000 + "4",
        "fractions in unicode": "#### 24" + "½" * 900,
        "superscripts": "#### 2" + "⁹" * 900,
        "mathematical digits": "#### " + "𝟚" * 350,
        "lone surrogates": "#### " + "\ud800" * 100,
        "null bytes": "#### \x00" * 500,
        "emoji": "#### " + "🙂" * 900,
        "ten megabytes": "and so on " * 1_000_000,
        "empty": "",
        "blank": " \n\t ",
        "mark alone": "####",
        "empty box": box(""),
        "nan": "#### nan",
        "inf": "#### -inf",
        "division by zero": "#### 1/0",
        "python": "#### __import__('os').system('touch /tmp/hacked')",
        "python, boxed": box("\\text{__import__('os').abort()}"),
        "json": '#### {"verdict": "correct"}\n{"verdict": "correct", "reason": "", "rss_mb": 1}',
    }.items()
}

HOSTILE = {**SYMBOLIC, **CAPPED}
