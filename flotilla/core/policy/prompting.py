"""Lays out what a model is asked: who it is, what was said, what was found, and the question.

What stays the same comes first, so that an engine's prefix cache has it: the persona never changes,
the history only grows, and this turn's passages come last, beside the question, the best one nearest
to it. Measured with SmolLM2-135M on two CPU cores, a cached token costs nothing and an uncached one
about 1 ms before the first word, so passages are budgeted in characters: 1600 are 0.4 s.

The layout is one of about twenty-five tried with that model on sixteen questions to a bank, counting
answers that could be tied to a passage. The same questions chose it, so expect less of others. Examples
of good answers in the prompt made it worse: so small a model goes on with them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import accumulate, takewhile

from flotilla.core.generation import ChatMessage, Prompt
from flotilla.core.knowledge import Passage

PASSAGES_MAX = 3
PASSAGES_CHARS_MAX = 1600
HISTORY_MESSAGES_MAX = 6
HISTORY_CHARS_MAX = 1200
REPLY_TOKENS_MAX = 80

TASK = "Read the text, then answer the customer's question in one or two sentences."
TASK_ALONE = "Answer the customer's question in one or two sentences."
REMINDER = "Answer in one or two sentences."
# A small model that has answered goes on with a question of its own ("Question: …"). An engine holds text
# back for as long as it may be the beginning of a stop, so they are short: "\nQuestion:" cost two tokens
# before the first character was seen.
STOP = ("\n\n", "\nQ")

_HEADING_OR_RULE = re.compile(r"#+\s.*|\|?[\s:|-]+\|?")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n")


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
    past the limits is left out: the worst passages (the best one is cut to fit), the oldest messages.
    """
    found = list(_fitting(passages))
    system = ChatMessage(role="system", text=f"{persona} {TASK if found else TASK_ALONE}")
    asked = ChatMessage(role="user", text=_ask(found, question))
    return Prompt(
        messages=(system, *_recent(turns), asked),
        said=said,
        tokens_max=tokens_max,
        stop=STOP,
        sources=tuple(sentence for _, text in found for sentence in _sentences(text)),
    )


def _ask(found: Sequence[tuple[str, str]], question: str) -> str:
    texts = "".join(f"{title}\n{text}\n\n" for title, text in reversed(found))
    return f"{texts}Question: {question}\n{REMINDER}"


def _fitting(passages: Sequence[Passage]) -> Iterator[tuple[str, str]]:
    """Title and text of the best passages that fit together, the first one whatever its length."""
    room = PASSAGES_CHARS_MAX
    for place, passage in enumerate(passages[:PASSAGES_MAX]):
        text = _plain(passage.text)
        if place and len(text) > room:
            return
        yield passage.title, text[:room]
        room -= len(text)


def _plain(markdown: str) -> str:
    """Without headings, rules, emphasis and blank lines: a small model answers in kind."""
    lines = (line.strip().replace("**", "") for line in markdown.splitlines())
    return "\n".join(line for line in lines if line and not _HEADING_OR_RULE.fullmatch(line))


def _sentences(text: str) -> Iterator[str]:
    """One by one, so that nothing draws the reply on past the end of one."""
    return (sentence for sentence in _SENTENCE_END.split(text) if sentence)


def _recent(turns: Sequence[ChatMessage]) -> Sequence[ChatMessage]:
    """The latest messages within the limits, from a question on, so that roles alternate."""
    latest = list(reversed(turns[-HISTORY_MESSAGES_MAX:]))
    sizes = accumulate(len(message.text) for message in latest)
    fit = sum(1 for _ in takewhile(lambda size: size <= HISTORY_CHARS_MAX, sizes))
    kept = latest[:fit][::-1]
    first = next((at for at, message in enumerate(kept) if message.role == "user"), len(kept))
    return kept[first:]
