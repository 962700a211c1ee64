"""From a conversation to the tokens of a prompt, and back from tokens to whole characters."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import msgspec

from flotilla.core.errors import Refused
from flotilla.core.generation import ChatMessage, Prompt, ToolCall, ToolSpec
from models.structured import tools_of
from models.tool_text import described, in_words, instructions

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
        self.context_tokens_max = context_tokens_max
        self._bytewise = bytewise
        added = tokenizer.added_tokens_decoder.values()
        self._control = [token.content for token in added if token.special]
        self._knows_tools = _knows_tools(tokenizer.chat_template)

    def encode(self, prompt: Prompt) -> Encoded:
        """Raises `Refused` if there is no room left for a reply, or if the template can't take the
        messages."""
        ids = self._raw_ids(prompt.raw) if prompt.raw else self._prompt_ids(prompt)
        said, replay = self._split_said(prompt.said)
        sources = [self._tokens(self._plain(source)) for source in prompt.sources]
        encoded = Encoded(ids + said, len(said), replay, sources)
        self._check_size(len(encoded.ids), "raw" if prompt.raw else "messages")
        return encoded

    def room(self, encoded: Encoded) -> int:
        """Tokens that still fit into the context."""
        return self.context_tokens_max - len(encoded.ids)

    def _raw_ids(self, text: str) -> list[int]:
        """As it stands, control tokens too: whoever sends it knows the model's own format."""
        return self._tokenizer.encode(text, add_special_tokens=True)

    def _prompt_ids(self, prompt: Prompt) -> list[int]:
        tools = tools_of(prompt)
        if self._knows_tools:
            chat, given = [self._native(message) for message in prompt.messages], self._given(tools)
        else:
            chat, given = self._told(prompt.messages, tools), None
        return self._tokens(self._applied(chat, given))

    def _applied(self, chat: list[dict[str, Any]], tools: list[dict[str, Any]] | None) -> str:
        try:
            return self._tokenizer.apply_chat_template(
                chat, tools=tools, tokenize=False, add_generation_prompt=True
            )
        except Exception as error:  # templates raise what they like
            raise Refused(
                f"The model's chat template can't take these messages: {error}",
                field="messages",
                next="Send the roles in the order that the model knows.",
            ) from error

    def _native(self, message: ChatMessage) -> dict[str, Any]:
        """For a template that knows of tools."""
        plain: dict[str, Any] = {"role": message.role, "content": self._plain(message.text)}
        if message.calls:
            plain["tool_calls"] = [self._native_call(call) for call in message.calls]
        return plain | ({"tool_call_id": message.answers} if message.answers else {})

    def _native_call(self, call: ToolCall) -> dict[str, Any]:
        arguments = _object(self._plain(call.arguments))
        return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": arguments}}

    def _given(self, tools: Sequence[ToolSpec]) -> list[dict[str, Any]] | None:
        return [json.loads(self._plain(json.dumps(described(t), ensure_ascii=False))) for t in tools] or None

    def _told(self, messages: Sequence[ChatMessage], tools: Sequence[ToolSpec]) -> list[dict[str, Any]]:
        """For a template that knows of none: in words, at the end of the system's turn."""
        chat = [{"role": role, "content": self._plain(text)} for role, text in map(in_words, messages)]
        if not tools:
            return chat
        system = chat.pop(0)["content"] + "\n\n" if chat and chat[0]["role"] == "system" else ""
        return [{"role": "system", "content": system + self._plain(instructions(tools))}, *chat]

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

    def _check_size(self, tokens: int, field: str) -> None:
        if tokens >= self.context_tokens_max:
            raise Refused(
                f"The prompt has {tokens} tokens; this model takes {self.context_tokens_max}, reply included.",
                field=field,
                next="Send fewer or shorter messages, or start a new conversation.",
            )


def _knows_tools(template: Any) -> bool:
    """Whether a chat template (one, or several by name) does something with tools."""
    return "tools" in (template if isinstance(template, str) else str(template or ""))


def _object(arguments: str) -> Any:
    """What templates want to write as JSON themselves; the text where it is none."""
    try:
        return json.loads(arguments)
    except ValueError:
        return arguments


class Unsaid:
    """Takes the replayed beginning off a stream of text."""

    def __init__(self, replay: str) -> None:
        self._rest = replay

    @property
    def done(self) -> bool:
        return not self._rest

    def take(self, text: str) -> str:
        """What of `text` has not been read yet."""
        skipped = min(len(text), len(self._rest))
        self._rest = self._rest[skipped:]
        return text[skipped:]
