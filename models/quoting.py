"""An answer in the words of its sources: the sentence that shares most words with the question."""

from __future__ import annotations

import re
from collections.abc import Sequence

from flotilla.core.generation import Prompt

NOTHING_TO_QUOTE = "I don't have that information."


def quote(prompt: Prompt, *, common_min: int = 0) -> str:
    """The source that best fits what comes after the sources, the question; without sources, the
    sentence of the last user message that best fits its last line. `NOTHING_TO_QUOTE` if none shares
    `common_min` words with the question."""
    said = next((message.text for message in reversed(prompt.messages) if message.role == "user"), "")
    if prompt.sources:
        asked = said[max(said.rfind(source) + len(source) for source in prompt.sources) :]
        return _best(prompt.sources, asked, common_min)
    *before, question = [line for line in said.splitlines() if line.strip()] or [""]
    return _best(
        [s.strip() for line in before for s in re.split(r"(?<=[.!?])\s+", line)], question, common_min
    )


def _best(sentences: Sequence[str], question: str, common_min: int) -> str:
    asked = stems(question)
    best = max(sentences, key=lambda sentence: len(asked & stems(sentence)), default=NOTHING_TO_QUOTE)
    return best if len(asked & stems(best)) >= common_min else NOTHING_TO_QUOTE


def stems(text: str) -> set[str]:
    """Words of four letters and more, cut to five: `transfers` and `transfer` are one."""
    return {word[:5] for word in re.findall(r"\w{4,}", text.lower())}
