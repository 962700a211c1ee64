"""Steering: quotes get a head start, numbers come from the prompt, nothing is said twice."""

from __future__ import annotations

import torch

from models.closeness import PENALTY, WORD_SHARE, Signs, Steer

# A toy vocabulary: 0-9 are the digits, 10 is "." and 11 a line break; the rest are words.
SIGNS = Signs(digits=frozenset(range(10)), points=frozenset([10]), breaks=frozenset([11]))
SIZE = 40


def steer(prompt: list[int], output: list[int], sources: list[list[int]], said: int = 0) -> list[float]:
    return Steer(4.0, sources, said, SIGNS)(prompt, output, torch.zeros(SIZE)).tolist()


def test_what_goes_on_a_quote_gets_a_head_start() -> None:
    logits = steer([20], [21, 22], [[21, 22, 23], [30, 22, 31]])
    assert logits[23] == 4.0
    assert logits[31] == 4.0 * WORD_SHARE
    assert logits[24] == 0


def test_nothing_draws_the_reply_past_the_end_of_a_source() -> None:
    assert steer([20], [21, 22], [[21, 22], [23, 24]])[23] == 0


def test_numbers_come_from_the_prompt() -> None:
    prompt = [20, 5, 10, 7, 5, 20, 3]  # "5.75" and "3"
    begin, inside, after = (steer(prompt, [21, *number], []) for number in ([], [5, 10, 7], [5, 10, 7, 5]))
    assert [digit for digit in range(10) if begin[digit] == 0] == [3, 5]
    assert [digit for digit in range(10) if inside[digit] == 0] == [5]
    assert all(after[digit] == -PENALTY for digit in range(10))


def test_a_line_may_begin_with_any_number() -> None:
    assert steer([20], [21, 11], [])[:10] == [0] * 10


def test_a_run_is_not_begun_again() -> None:
    said = [21, 22, 23, 24, 25, 26]
    assert steer([20], [*said, 21, 22, 23, 24], [])[25] == -PENALTY
    assert steer([20, *said, 21, 22], [23, 24], [], said=8)[25] == -PENALTY


def test_goes_on_as_if_it_had_not_been_cut() -> None:
    sources, reply = [[21, 22, 23], [5, 10, 7]], [21, 22, 23, 30]
    whole = steer([20], reply, sources)
    assert all(steer([20, *reply[:at]], reply[at:], sources, said=at) == whole for at in range(5))
