"""Which version made a reply, as the probabilities of its tokens show: those of other weights differ by much more than
those of the same weights in another batch."""

from __future__ import annotations

import asyncio

from benchmarks.asking import Answer, Broken, OpenAI, openai
from benchmarks.solo import Asked
from benchmarks.talking import Talk
from tests.fleet import TestFleet

TOKENS = 16
SAME, OTHER = 2e-3, 1e-2
"""Logprobs of the same weights differ by less than the first, those of others by more than the second."""
QUESTIONS = [
    Asked(messages=[{"role": "user", "content": text}], tokens_max=TOKENS)
    for text in ("What does a bank do?", "Tell me about the sea.", "How do I bake bread?")
]
Words = list[list[tuple[str, float]]]
"""Tokens and their logprobs, by question."""


async def words_of(fleet: TestFleet, version: str) -> Words:
    """What a version says when nobody else asks."""
    async with openai(fleet.url) as client:
        return [(await client.ask(asked, version, logprobs=True)).logprobs for asked in QUESTIONS]


def distance(answer: Answer, words: list[tuple[str, float]]) -> float:
    """The largest difference of two logprobs, as far as both say the same; endless if they begin apart."""
    pairs = list(zip(answer.logprobs, words, strict=False))
    same = next((n for n, (mine, theirs) in enumerate(pairs) if mine[0] != theirs[0]), len(pairs))
    return max((abs(mine[1] - theirs[1]) for mine, theirs in pairs[:same]), default=float("inf"))


def assert_honest(talk: Talk, known: dict[str, Words]) -> dict[str, int]:
    """Nobody was failed or cut, and each reply is of the version that it names, from its first token to its
    last, and of no other. How many each made."""
    made = dict.fromkeys(known, 0)
    for said in talk.said:
        assert not said.problem and said.answer is not None, said
        # A reply that ends by itself ends with a token that has no words.
        assert said.answer.reply.tokens - len(said.answer.logprobs) in (0, 1) and said.answer.logprobs, said
        apart = {version: distance(said.answer, words[said.question]) for version, words in known.items()}
        assert apart.pop(said.answer.version) < SAME, (said, apart)
        assert min(apart.values()) > OTHER, (said, apart)
        made[said.answer.version] += 1
    return made


async def until_known(client: OpenAI, version: str, timeout_s: float = 10) -> Answer:
    """A gateway reads of a new version with its next look at the plans."""
    async with asyncio.timeout(timeout_s):
        while True:
            try:
                return await client.ask(QUESTIONS[0], version, logprobs=True)
            except Broken as broken:
                if not str(broken).startswith("404"):
                    raise
