"""A mix of answers as models write them to GSM8K problems: the gold number in other dress, and other numbers.

What comes in: a gold number as the data set writes it ("1,080"). What goes out: texts that give the same number, and
texts that give another one. Used by the tests and by benchmarks/b6_verify.py.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path


def grouped(gold: str) -> str:
    return f"{int(gold.replace(',', '')):,}"


def bare(gold: str) -> str:
    return gold.replace(",", "")


def money(gold: str) -> str:
    number = grouped(gold)
    return f"-${number[1:]}" if number.startswith("-") else f"${number}"


VARIATIONS: Mapping[str, Callable[[str], str]] = {
    "mark": lambda gold: f"She adds 2 and 3.\n#### {gold}",
    "spacing": lambda gold: f"####{gold}  \n",
    "bare": bare,
    "commas": lambda gold: f"#### {grouped(gold)}",
    "money": lambda gold: f"The total is then known.\n#### {money(gold)}",
    "units": lambda gold: f"#### {gold} apples",
    "boxed": lambda gold: f"We add 2 and 3, so the answer is $\\boxed{{{bare(gold)}}}$.",
    "boxed units": lambda gold: f"\\boxed{{{bare(gold)}\\text{{ dollars}}}}",
    "trailing": lambda gold: f"The final answer is {gold}. I hope it is correct.",
    "zeros": lambda gold: f"#### {bare(gold)}.00",
    "latex": lambda gold: f"The answer is ${bare(gold)}$.",
    "bold": lambda gold: f"**Answer:** {gold}",
}


def changed(gold: str) -> list[str]:
    """Other numbers: off by one, another first digit, a digit more, the sign, a tenth more."""
    number = int(bare(gold))
    first = bare(gold).lstrip("-")
    return [
        str(number + 1),
        str(number - 1),
        f"{number}0" if number else "10",
        str(-number) if number else "1",
        f"{'-' if number < 0 else ''}{int(first[0]) % 9 + 1}{first[1:]}",
        f"{number}.1",
    ]


def gold_answers(data: Path, split: str = "train") -> list[str]:
    """The numbers after `####` in GSM8K's file."""
    lines = (data / "gsm8k" / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["answer"].rpartition("####")[2].strip() for line in lines]
