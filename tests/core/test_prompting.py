"""The layout of a prompt: stable beginning, bounded middle, the question last."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from flotilla.core.generation import ChatMessage
from flotilla.core.knowledge import Passage
from flotilla.core.policy import prompting
from flotilla.core.policy.prompting import build

PERSONA = "You work for a bank."


def passage(text: str, n: int = 0, title: str = "Fees") -> Passage:
    return Passage(id=f"doc#{n}", document="doc", title=title, text=text)


def said(role: str, text: str) -> ChatMessage:
    return ChatMessage(role=role, text=text)  # type: ignore[arg-type]


def talk(turns: int) -> list[ChatMessage]:
    return [said(role, f"{role} {n}") for n in range(turns) for role in ("user", "assistant")]


def test_the_question_comes_last_and_the_best_passage_next_to_it() -> None:
    prompt = build(PERSONA, [passage("Best.", title="A"), passage("Second.", title="B")], [], "How much?")
    asked = prompt.messages[-1].text
    assert asked.index("Second.") < asked.index("Best.") < asked.index("How much?")
    assert "A\nBest." in asked


def test_a_later_turn_begins_like_the_earlier_one() -> None:
    first = build(PERSONA, [passage("One.")], talk(1), "a")
    second = build(PERSONA, [passage("Two.")], [*talk(1), said("user", "a"), said("assistant", "b")], "c")
    assert second.messages[: len(first.messages) - 1] == first.messages[:-1]


def test_headings_rules_and_emphasis_are_left_out() -> None:
    prompt = build(PERSONA, [passage("## Fees\n\n| a | b |\n|---|:-:|\n**Wire**: $5\n- Free")], [], "?")
    assert "| a | b |\nWire: $5\n- Free" in prompt.messages[-1].text
    assert "##" not in prompt.messages[-1].text
    assert "|---|" not in prompt.messages[-1].text


def test_sources_are_the_sentences_of_the_passages_in_the_prompt() -> None:
    prompt = build(PERSONA, [passage("A is $5. B is free!\n- C")], [], "?")
    assert prompt.sources == ("A is $5.", "B is free!", "- C")
    assert all(source in prompt.messages[-1].text for source in prompt.sources)


def test_the_worst_passages_are_left_out_and_the_best_is_cut() -> None:
    long = "x" * (prompting.PASSAGES_CHARS_MAX + 100)
    asked = build(PERSONA, [passage(long), passage("never")], [], "?").messages[-1].text
    assert asked.count("x") == prompting.PASSAGES_CHARS_MAX
    assert "never" not in asked
    many = build(PERSONA, [passage(f"p{n}") for n in range(9)], [], "?").messages[-1].text
    assert [n for n in range(9) if f"p{n}" in many] == list(range(prompting.PASSAGES_MAX))


def test_history_keeps_the_latest_messages_from_a_question_on() -> None:
    prompt = build(PERSONA, [], talk(20), "now")
    kept = prompt.messages[1:-1]
    assert kept[0].role == "user"
    assert kept[-1].text == "assistant 19"
    assert len(kept) == prompting.HISTORY_MESSAGES_MAX
    assert build(PERSONA, [], [said("assistant", "hello")], "now").messages[1:-1] == ()


def test_said_and_length_are_passed_on() -> None:
    prompt = build(PERSONA, [], [], "?", said="It is", tokens_max=7)
    assert (prompt.said, prompt.tokens_max) == ("It is", 7)


@given(
    texts=st.lists(st.text(max_size=3000), max_size=8),
    turns=st.lists(st.tuples(st.sampled_from(["user", "assistant"]), st.text(max_size=900)), max_size=12),
    question=st.text(max_size=200),
)
def test_prompts_are_bounded(texts: list[str], turns: list[tuple[str, str]], question: str) -> None:
    passages = [passage(text, n) for n, text in enumerate(texts)]
    prompt = build(PERSONA, passages, [said(*turn) for turn in turns], question)
    history = prompt.messages[1:-1]
    assert sum(len(message.text) for message in history) <= prompting.HISTORY_CHARS_MAX
    assert sum(map(len, prompt.sources)) <= prompting.PASSAGES_CHARS_MAX
    assert len(prompt.messages[-1].text) <= prompting.PASSAGES_CHARS_MAX + len(question) + 100
    assert prompt.messages[-1].text.endswith(f"Question: {question}\n{prompting.REMINDER}")
