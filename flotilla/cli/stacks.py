"""Recorded stacks, one a line with its count ("folded", as flame graphs are made of), and the time of each
function in them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping

import msgspec

_FRAME = re.compile(r"^(?P<name>.*?)(?: \((?P<file>[^()]*?)(?::\d+)?\))?$")

Stack = tuple[tuple[str, str], ...]
"""Names and files of functions, the outermost first."""


class Function(msgspec.Struct, frozen=True, kw_only=True):
    """How often it was seen: at the end of a stack (`own`), anywhere in one (`total`)."""

    name: str
    file: str
    own: int
    total: int


def read(folded: str) -> Counter[Stack]:
    """`outer (a.py:3);inner (b.py:7) 12` a line; lines of code are forgotten."""
    stacks: Counter[Stack] = Counter()
    for line in folded.splitlines():
        frames, _, count = line.rpartition(" ")
        stacks[tuple(_frame(text) for text in frames.split(";"))] += int(count)
    return stacks


def _frame(text: str) -> tuple[str, str]:
    found = _FRAME.match(text)
    return (found["name"], found["file"] or "") if found else (text, "")


def functions(stacks: Mapping[Stack, int]) -> list[Function]:
    """Those with most time of their own first. One that calls itself counts once a stack."""
    own: Counter[tuple[str, str]] = Counter()
    total: Counter[tuple[str, str]] = Counter()
    for stack, count in stacks.items():
        own[stack[-1]] += count
        for frame in set(stack):
            total[frame] += count
    seen = sorted(total, key=lambda frame: (-own[frame], -total[frame], frame))
    return [
        Function(name=name, file=file, own=own[name, file], total=total[name, file]) for name, file in seen
    ]
