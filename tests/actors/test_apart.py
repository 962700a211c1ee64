"""Pieces that come no faster than asked for: the same text, fewer pieces, the first at once."""

from __future__ import annotations

import itertools
from collections.abc import AsyncGenerator

from hypothesis import given
from hypothesis import strategies as st

from actors.serving.apart import APART_LEAST_S, APART_MOST_S, apart, apart_s
from flotilla.core.generation import Finished, Generated, Piece, TokenLogprob, Usage

END = Finished(reason="stop", usage=Usage(), first_token_ms=1.0, total_ms=2.0)


class Hands:
    """A clock that goes as far as the engine's pauses say."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def monotonic(self) -> float:
        return self.now_s


async def said(gaps: list[float], apart_for_s: float, *, ended: bool = True) -> list[tuple[float, Generated]]:
    clock = Hands()

    async def engine() -> AsyncGenerator[Generated]:
        for n, gap in enumerate(gaps):
            clock.now_s += gap
            logprob = TokenLogprob(token=f"{n}", logprob=-1.0, top=())
            yield Piece(text=f"{n} ", logprobs=(logprob,), model="" if n else "m@1")
        if ended:
            yield END

    return [(clock.now_s, part) async for part in apart(engine(), apart_for_s, clock)]  # type: ignore[arg-type]


@given(st.lists(st.floats(0, 0.3), max_size=30), st.floats(0.02, 0.2))
async def test_the_text_is_whole_and_nothing_comes_too_soon(gaps: list[float], apart_for_s: float) -> None:
    parts = await said(gaps, apart_for_s)
    pieces = [(at, part) for at, part in parts if isinstance(part, Piece)]
    assert "".join(piece.text for _, piece in pieces) == "".join(f"{n} " for n in range(len(gaps)))
    assert sum(piece.tokens for _, piece in pieces) == len(gaps)
    assert [p.token for _, piece in pieces for p in piece.logprobs] == [f"{n}" for n in range(len(gaps))]
    assert parts[-1][1] == END
    if pieces:
        assert pieces[0][0] == gaps[0] and pieces[0][1].text == "0 " and pieces[0][1].model == "m@1"
    spread = [later - at for (at, _), (later, _) in itertools.pairwise(pieces)]
    assert all(gap >= apart_for_s - 1e-9 for gap in spread[:-1])  # the last may come with the end


async def test_slow_engines_are_not_held_back() -> None:
    parts = await said([0.0, 0.3, 0.3], 0.1)
    assert len(parts) == 4


def test_a_host_asks_for_fewer_pieces_the_more_replies_it_has() -> None:
    asked = [apart_s(replies) for replies in range(1000)]
    assert asked[0] == asked[10] == 0.0  # as they come
    assert all(one == 0.0 or APART_LEAST_S <= one <= APART_MOST_S for one in asked)
    assert asked == sorted(asked) and asked[-1] == APART_MOST_S
