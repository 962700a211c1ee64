"""From a conversation to the tokens of a prompt, and back from tokens to whole characters."""

from __future__ import annotations

from typing import Any

import msgspec

from flotilla.core.errors import Refused
from flotilla.core.generation import ChatMessage, Prompt

REPLAY_TOKENS_MAX = 8
"""How far back the replay of a reply that is continued looks for the beginning of a word."""


class Encoded(msgspec.Struct, frozen=True):
    """A prompt for the engine: token ids, the last `said_tokens` of them already part of the reply,
    the end of `said` that the model has to say again, and the sources to keep close to."""

    ids: list[int]
    said_tokens: int
    replay: str
    sources: list[list[int]]


class ChatEncoder:
    """Applies the model's own chat template. `tokenizer` is a Hugging Face fast tokeniser."""

    def __init__(self, tokenizer: Any, *, context_tokens_max: int, bytewise: bool) -> None:
        self._tokenizer = tokenizer
        self._context = context_tokens_max
        self._bytewise = bytewise
        added = tokenizer.added_tokens_decoder.values()
        self._control = [token.content for token in added if token.special]

    def encode(self, prompt: Prompt) -> Encoded:
        """Raises `Refused` if there is no room left for a reply."""
        ids = self._prompt_ids(prompt.messages)
        said, replay = self._split_said(prompt.said)
        sources = [self._tokens(self._plain(source)) for source in prompt.sources]
        encoded = Encoded(ids + said, len(said), replay, sources)
        self._check_size(len(encoded.ids))
        return encoded

    def room(self, encoded: Encoded) -> int:
        """Tokens that still fit into the context."""
        return self._context - len(encoded.ids)

    def _prompt_ids(self, messages: tuple[ChatMessage, ...]) -> list[int]:
        chat = [{"role": message.role, "content": self._plain(message.text)} for message in messages]
        text = self._tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        return self._tokens(text)

    def _tokens(self, text: str) -> list[int]:
        return self._tokenizer.encode(text, add_special_tokens=False)

    def _plain(self, text: str) -> str:
        """Breaks control tokens that a person spelled out: nobody can open a system turn by typing it."""
        for token in self._control:
            text = text.replace(token, f"{token[0]} {token[1:]}")
        return text

    def _split_said(self, said: str) -> tuple[list[int], str]:
        """`said` as the tokens to put into the prompt, and the text after them to replay."""
        # split_special_tokens: a control token in `said` is text that was shown as text.
        ids = (
            self._tokenizer.encode(said, add_special_tokens=False, split_special_tokens=True) if said else []
        )
        if not self._bytewise:
            return ids, ""
        for cut in self._cuts(ids):
            kept = self._tokenizer.decode(ids[:cut], clean_up_tokenization_spaces=False)
            if said.startswith(kept):  # false in the middle of a character
                return ids[:cut], said[len(kept) :]
        return [], said

    def _cuts(self, ids: list[int]) -> list[int]:
        """Where to cut, best first: before the last word, else before the last token that can be."""
        nearest = range(len(ids) - 1, max(-1, len(ids) - 1 - REPLAY_TOKENS_MAX), -1)
        words = [n for n in nearest if self._begins_word(ids[n])]
        return [*words[:1], *nearest]

    def _begins_word(self, id: int) -> bool:
        return self._tokenizer.decode([id])[:1].isspace()

    def _check_size(self, tokens: int) -> None:
        if tokens >= self._context:
            raise Refused(
                f"The prompt has {tokens} tokens; this model takes {self._context}, reply included.",
                field="messages",
                next="Send fewer or shorter messages, or start a new conversation.",
            )


class Unsaid:
    """Takes the replayed beginning off a stream of text."""

    def __init__(self, replay: str) -> None:
        self._rest = replay

    def take(self, text: str) -> str:
        """What of `text` has not been read yet."""
        skipped = min(len(text), len(self._rest))
        self._rest = self._rest[skipped:]
        return text[skipped:]
