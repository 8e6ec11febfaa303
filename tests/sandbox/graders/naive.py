"""Graders as people write them, each with its hole. They show that a wrong candidate does something."""

from __future__ import annotations

import json

from agentrl.sandbox import RunResult, SandboxPool

CASES = [([1, 2, 3], 14), ([4, -5, 6], 77), ([10], 100)]
WANTED = "1\n4\n9\n16\n25\n"
_ASSERTS = "\n" + "".join(f"assert solve({xs}) == {wanted}\n" for xs, wanted in CASES)
_MARKER = "ALL_TESTS_PASSED"
_CHILD = f"""
import json
cases = {CASES}
def good(case):
    return solve(case[0]) == case[1]
def main():
    passed = all(map(good, cases))
    print(json.dumps({{"passed": passed}}))
main()
"""
_UNITTEST = f"""
import unittest
class Test(unittest.TestCase):
    def test(self):
        for xs, wanted in {CASES}:
            self.assertEqual(solve(xs), wanted)
if __name__ == "__main__":
    unittest.main()
"""


async def fooled(pool: SandboxPool, grader: str, code: str) -> bool:
    """Whether this grader takes the candidate for right."""
    if grader == "asserts":
        return (await pool.run(code + _ASSERTS)).exit_code == 0
    if grader == "marker":
        return _MARKER in (await pool.run(code + _ASSERTS + f"print({_MARKER!r})\n")).stdout
    if grader == "child":
        return _says_passed(await pool.run(code + "\n" + _CHILD))
    if grader == "unittest":
        return (await pool.run(code + "\n" + _UNITTEST)).exit_code == 0
    printed = (await pool.run(code)).stdout
    if grader == "zip":
        pairs = zip(printed.splitlines(), WANTED.splitlines(), strict=False)
        return bool(printed) and all(got == wanted for got, wanted in pairs)
    if grader == "contains":
        return all(line in printed.splitlines() for line in WANTED.splitlines())
    if grader == "float":
        tokens = zip(printed.split(), WANTED.split(), strict=False)
        return all(not abs(float(got) - float(wanted)) > 1e-6 for got, wanted in tokens)
    raise ValueError(grader)


def _says_passed(run: RunResult) -> bool:
    for line in run.stdout.splitlines():
        try:
            if json.loads(line)["passed"]:
                return True
        except (ValueError, KeyError, TypeError):
            continue
    return False
