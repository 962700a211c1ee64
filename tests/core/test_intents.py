"""Which messages are answered in fixed words, and which are searched for."""

from __future__ import annotations

import time

import pytest

from flotilla.core.agents import BANK
from flotilla.core.policy.intents import PERSON_ASKED, WELCOME, reply_without_search


@pytest.mark.parametrize("text", ["Hi", "hello!", " HEY there 👋", "Good morning.", "hi\n"])
def test_a_greeting_is_greeted_in_the_words_of_the_agent(text: str) -> None:
    canned = reply_without_search(text, BANK)
    assert canned is not None and canned.text == BANK.greeting and not canned.wants_person


@pytest.mark.parametrize("text", ["Thanks", "thank you so much!!", "THX", "Cheers 🙂"])
def test_thanks_are_welcomed(text: str) -> None:
    assert reply_without_search(text, BANK) is WELCOME


@pytest.mark.parametrize(
    "text",
    [
        "I want to talk to a person",
        "Can I speak with someone?",
        "connect me to a human agent please",
        "put me through to a representative",
        "Transfer me to an agent.",
        "CHAT WITH A REAL PERSON",
    ],
)
def test_a_wish_for_a_person_is_heard(text: str) -> None:
    assert reply_without_search(text, BANK) is PERSON_ASKED


@pytest.mark.parametrize(
    "text",
    [
        "Hello, what does the Silver card cost?",
        "Thanks, and what is the limit?",
        "hi-fi insurance",
        "What is a personal loan?",
        "Which agent sells insurance?",
        "Thanksgiving opening hours",
        "これは何ですか",
        "👍",
        "?",
    ],
)
def test_everything_else_is_searched_for(text: str) -> None:
    assert reply_without_search(text, BANK) is None


@pytest.mark.parametrize(
    "text",
    [
        "How do two actors talk to one another?",
        "I don't want to talk to a person, what is the fee?",
    ],
)
def test_a_question_that_only_mentions_talking_is_searched_for(text: str) -> None:
    assert reply_without_search(text, BANK) is None


@pytest.mark.parametrize("text", [" " * 60_000, "!" * 60_000, "talk to " * 8_000, "hi" * 30_000])
def test_a_long_message_is_judged_in_no_time(text: str) -> None:
    begun = time.process_time()
    reply_without_search(text, BANK)
    assert time.process_time() - begun < 0.2
