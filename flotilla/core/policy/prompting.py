"""Lays out what a model is asked: who it is, what was said, what was found, and the question.

What stays the same comes first, so that an engine's prefix cache has it: the persona never changes,
the history only grows, and the passages of this turn come last, beside the question.
"""

from __future__ import annotations

from collections.abc import Sequence

from flotilla.core.generation import ChatMessage, Prompt
from flotilla.core.knowledge import Passage

PASSAGES_MAX = 3
PASSAGES_CHARS_MAX = 1600
HISTORY_TURNS_MAX = 4
HISTORY_CHARS_MAX = 1200
REPLY_TOKENS_MAX = 80

RULES = "Answer briefly, in one to three sentences, using only the words of the given text."


def build(
    persona: str,
    passages: Sequence[Passage],
    turns: Sequence[ChatMessage],
    question: str,
    *,
    said: str = "",
    tokens_max: int = REPLY_TOKENS_MAX,
) -> Prompt:
    """The prompt for one turn.

    `passages` come best first; `turns` are the messages before this question, oldest first. What is
    past the limits above is left out: the worst passages, the oldest turns.
    """
    system = ChatMessage(role="system", text=f"{persona} {RULES}")
    asked = ChatMessage(role="user", text=f"{_found(passages)}{question}")
    return Prompt(messages=(system, *_recent(turns), asked), said=said, tokens_max=tokens_max)


def _found(passages: Sequence[Passage]) -> str:
    texts = [f"{passage.title}\n{passage.text}" for passage in passages[:PASSAGES_MAX]]
    return "".join(f"{text}\n\n" for text in texts)[:PASSAGES_CHARS_MAX]


def _recent(turns: Sequence[ChatMessage]) -> list[ChatMessage]:
    return list(turns[-HISTORY_TURNS_MAX:])
