"""The filter of system calls against a slow twin: an interpreter of its instructions, and the rules read plainly."""

from __future__ import annotations

import struct

import pytest

from agentrl.sandbox.jail.numbers import AUDIT_ARCH, NUMBERS
from agentrl.sandbox.jail.policy import (
    ALLOWED,
    REFUSED,
    Also,
    Ask,
    Bits,
    Never,
    Only,
    Rule,
    with_branches,
    with_namespaces,
    without_namespaces,
)
from agentrl.sandbox.jail.seccomp import build

ALLOW, KILL, EPERM, ENOSYS, NOTIFY = 0x7FFF0000, 0x80000000, 0x50001, 0x50026, 0x7FC00000
PID = 4321
RULES = {
    "namespaces": with_namespaces(True),
    "old_landlock": with_namespaces(False),
    "branches": with_branches(True),
    "alone": without_namespaces(PID),
}


def answer(program: bytes, number: int, arguments: tuple[int, ...] = (), arch: int | None = None) -> int:
    """What the kernel would make of the program for this call."""
    data = struct.pack(
        "=iIQ6Q", number - (1 << 32) if number >> 31 else number, arch or 0, 0, *arguments, *[0] * (6 - len(arguments))
    )
    steps = list(struct.iter_unpack("=HBBI", program))
    at, value = 0, 0
    while True:
        code, if_true, if_false, word = steps[at]
        at += 1
        if code == 0x20:
            value = struct.unpack_from("=I", data, word)[0]
        elif code == 0x05:
            at += word
        elif code == 0x06:
            return word
        else:
            hit = {0x15: value == word, 0x25: value > word, 0x45: bool(value & word)}[code]
            at += if_true if hit else if_false


def wanted(rules: dict[str, Rule], name: str, arguments: tuple[int, ...]) -> int:
    """The rules as they read."""
    words = [argument & 0xFFFFFFFF for argument in (*arguments, 0, 0, 0)]
    if name not in rules:
        return ALLOW if name in ALLOWED else EPERM if name in REFUSED else ENOSYS
    match rules[name]:
        case None:
            return EPERM
        case Only(argument, values, errno):
            return ALLOW if words[argument] in values else 0x50000 | errno
        case Never(argument, values):
            return EPERM if words[argument] in values else ALLOW
        case Also(rule, first, second):
            return ALLOW if words[:2] == [first, second] else wanted({name: rule}, name, arguments)
        case Ask():
            return NOTIFY
        case Bits(refused, needed):
            return ALLOW if not words[0] & refused and (not needed or words[0] & needed) else EPERM
    raise AssertionError


@pytest.mark.parametrize("machine", sorted(NUMBERS))
@pytest.mark.parametrize("kind", sorted(RULES))
def test_every_number_gets_what_the_rules_say(machine: str, kind: str) -> None:
    rules, arch = RULES[kind], AUDIT_ARCH[machine]
    program = build(rules, machine)
    names = {number: name for name, number in NUMBERS[machine].items()}
    samples = [
        (),
        (1, 1),
        (2, 2),
        (17, 0x5412),
        (0x7E020011, 0x5401),
        (0x10F00, 15),
        (PID, 9),
        (0, 1031),
        (-1, 0x541B),
        (4, 1),
        (4, 0),
    ]
    for number in [*range(1000), 0x40000000, 0x40000001, 0xFFFFFFFF]:
        for arguments in samples:
            words = tuple(argument & (2**64 - 1) for argument in arguments)
            got = answer(program, number, words, arch)
            assert got == wanted(rules, names.get(number, "?"), arguments), (names.get(number), arguments, hex(got))


def test_another_architecture_is_killed() -> None:
    program = build(RULES["namespaces"], "x86_64")
    assert answer(program, NUMBERS["x86_64"]["read"], (), 0x40000003) == KILL  # 32-bit x86, where numbers mean others


def test_the_kernel_takes_every_filter() -> None:
    assert all(len(build(rules, machine)) // 8 < 4096 for rules in RULES.values() for machine in NUMBERS)


NEVER = """
ptrace process_vm_readv mount umount2 unshare setns chroot pivot_root bpf io_uring_setup keyctl shmget memfd_create
open_by_handle_at perf_event_open userfaultfd kexec_load init_module clone3 setuid move_mount open_tree
"""


@pytest.mark.parametrize("name", NEVER.split())
def test_what_must_never_be_allowed(name: str) -> None:
    for rules in RULES.values():
        for machine, numbers in NUMBERS.items():
            if name in numbers:
                got = answer(build(rules, machine), numbers[name], (), AUDIT_ARCH[machine])
                asked = name == "unshare" and rules is RULES["branches"]
                assert got == (NOTIFY if asked else ENOSYS if name == "clone3" else EPERM)


def test_the_words_of_signed_arguments_are_compared() -> None:
    """The kernel looks at the lower 32 bits of a pid; so does the filter."""
    program, arch = build(RULES["alone"], "x86_64"), AUDIT_ARCH["x86_64"]
    kill = NUMBERS["x86_64"]["kill"]
    assert answer(program, kill, (PID, 9), arch) == ALLOW
    assert answer(program, kill, (PID + (1 << 32), 9), arch) == ALLOW
    assert answer(program, kill, (2**64 - 1, 9), arch) == EPERM  # everybody
    assert answer(program, kill, (2**64 - PID, 9), arch) == EPERM  # a group
