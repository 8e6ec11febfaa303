"""Builds a seccomp filter from rules: bytes of classic BPF, 8 an instruction. Pure; `syscalls.Filter`
installs it.

The numbers are sorted into ranges with one answer each, which are bisected. The kernel walks the filter for every
number when it is installed and remembers those that are always allowed: a straight walk would make that take half a
millisecond.
"""

from __future__ import annotations

import platform
import struct
from collections.abc import Mapping, Sequence

from .numbers import AUDIT_ARCH, NUMBERS
from .policy import ALLOWED, REFUSED, Also, Ask, Bits, Never, Only, Rule

_LOAD, _SKIP, _EQUAL, _GREATER, _ANY_BIT, _RETURN = 0x20, 0x05, 0x15, 0x25, 0x45, 0x06
_ALLOW, _KILL, _NOTIFY = 0x7FFF0000, 0x80000000, 0x7FC00000
_EPERM, _ENOSYS = 1, 38
_NUMBER, _ARCH = 0, 4
_LAST = 0xFFFFFFFF
_MISSING = struct.pack("=HBBI", _RETURN, 0, 0, 0x00050000 | _ENOSYS)


def supported() -> bool:
    """Whether the filter knows this machine's system calls."""
    return platform.machine() in NUMBERS


def build(rules: Mapping[str, Rule], machine: str | None = None) -> bytes:
    """The filter of `policy` with these rules for single calls. Any other architecture's calls kill the process."""
    machine = machine or platform.machine()
    numbers = NUMBERS[machine]
    answers = {numbers[name]: _return(_errno(_EPERM)) for name in REFUSED if name in numbers}
    answers |= {numbers[name]: _return(_ALLOW) for name in ALLOWED if name in numbers}
    answers |= {numbers[name]: _rule(rule) for name, rule in rules.items() if name in numbers}
    program = _load(_ARCH) + _jump(_EQUAL, AUDIT_ARCH[machine], 1, 0) + _return(_KILL) + _load(_NUMBER)
    return program + _search([*_ranges(answers), (_LAST, _MISSING)])


def _search(ranges: Sequence[tuple[int, bytes]]) -> bytes:
    """Bisects: greater numbers go to the second half."""
    if len(ranges) == 1:
        return ranges[0][1]
    half = len(ranges) // 2
    lower, upper = _search(ranges[:half]), _search(ranges[half:])
    return _jump(_GREATER, ranges[half - 1][0], 0, 1) + _skip(len(lower) // 8) + lower + upper


def _ranges(answers: Mapping[int, bytes]) -> list[tuple[int, bytes]]:
    """(last number, answer) in rising order, up to the highest number that has one."""
    found: list[tuple[int, bytes]] = []
    for number in range(max(answers) + 1):
        answer = answers.get(number, _MISSING)
        if found and found[-1][1] == answer:
            found[-1] = (number, answer)
        else:
            found.append((number, answer))
    return found


def _rule(rule: Rule) -> bytes:
    if rule is None:
        return _return(_errno(_EPERM))
    if isinstance(rule, Ask):
        return _return(_NOTIFY)
    if isinstance(rule, Also):
        rest = _rule(rule.rule)
        pair = _jump(_EQUAL, rule.first, 0, 3) + _load(_argument(1)) + _jump(_EQUAL, rule.second, 0, 1)
        return _load(_argument(0)) + pair + _return(_ALLOW) + rest
    if isinstance(rule, Bits):
        wanted = _jump(_ANY_BIT, rule.wanted, 1, 0) + _return(_errno(_EPERM)) if rule.wanted else b""
        refused = _jump(_ANY_BIT, rule.refused, 0, 1) + _return(_errno(_EPERM))
        return _load(_argument(0)) + refused + wanted + _return(_ALLOW)
    hit, other = _ALLOW, _errno(_EPERM)
    if isinstance(rule, Only):
        other = _errno(rule.errno)
    elif isinstance(rule, Never):
        hit, other = other, hit
    tests = b"".join(_jump(_EQUAL, value, 0, 1) + _return(hit) for value in rule.values)
    return _load(_argument(rule.argument)) + tests + _return(other)


def _argument(index: int) -> int:
    """Where the lower half of an argument stands on a little-endian machine."""
    return 16 + 8 * index


def _errno(number: int) -> int:
    return 0x00050000 | number


def _load(offset: int) -> bytes:
    return struct.pack("=HBBI", _LOAD, 0, 0, offset)


def _skip(instructions: int) -> bytes:
    return struct.pack("=HBBI", _SKIP, 0, 0, instructions)


def _jump(code: int, value: int, if_true: int, if_false: int) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, value)


def _return(value: int) -> bytes:
    return struct.pack("=HBBI", _RETURN, 0, 0, value)
