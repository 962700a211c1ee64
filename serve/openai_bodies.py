"""What OpenAI's clients send, checked. A parameter that would change the reply and isn't known is refused,
so that nobody believes it was heeded; those in `IGNORED` change nothing that a reply says."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

MESSAGES_MAX = 1_024
TOOLS_MAX = 128
CHOICES_MAX = 4
PROMPTS_MAX = 16
INPUTS_MAX = 2_048
STOPS_MAX = 4
LOGPROBS_MAX = 20
TOKENS_DEFAULT = 1_024
TOKENS_MAX = 32_768
"""Of all the choices of a request together."""

IGNORED = frozenset(
    {
        "metadata",
        "moderation",
        "prediction",
        "prompt_cache_options",
        "prompt_cache_retention",
        "safety_identifier",
        "service_tier",
        "store",
    }
)
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "audio": (),
    "best_of": (1,),
    "echo": (False,),
    "frequency_penalty": (0,),
    "function_call": ("none",),
    "functions": ([],),
    "logit_bias": ({},),
    "modalities": (["text"],),
    "presence_penalty": (0,),
    "reasoning_effort": ("none",),
    "suffix": ("",),
    "verbosity": ("medium",),
    "web_search_options": (),
}
"""What may be sent of parameters that aren't supported, besides null: what they are without being sent."""

Name = Annotated[str, Field(min_length=1, max_length=256)]
Stop = Annotated[str, Field(min_length=1, max_length=1_024)]


class _Part(BaseModel):
    """A part of a body: clients send back what they were sent, with more fields than anybody reads."""

    model_config = ConfigDict(strict=True, extra="ignore")


class _Body(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _leave_out(cls, body: Any) -> Any:
        if not isinstance(body, dict):
            return body
        return {name: value for name, value in body.items() if not _harmless(name, value)}  # pyright: ignore


def _harmless(name: str, value: Any) -> bool:
    return name in IGNORED or (name in _NEUTRAL and (value is None or value in _NEUTRAL[name]))


# -- chat


class ContentPart(_Part):
    type: str
    text: str | None = None
    refusal: str | None = None


class FunctionCall(_Part):
    name: Name
    arguments: str


class Called(_Part):
    id: Name
    type: Literal["function"] = "function"
    function: FunctionCall


class MessageBody(_Part):
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[ContentPart] | None = None
    tool_calls: Annotated[list[Called], Field(max_length=TOOLS_MAX)] | None = None
    tool_call_id: Name | None = None


class Function(_Part):
    name: Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]
    description: str | None = None
    parameters: dict[str, Any] | None = None


class Tool(_Part):
    type: Literal["function"]
    function: Function


class _Named(_Part):
    name: Name


class ToolChoice(_Part):
    type: Literal["function"]
    function: _Named


class JsonSchema(_Part):
    """`schema` is a method of every model, hence the other name."""

    name: Name
    definition: dict[str, Any] = Field(alias="schema")


class ResponseFormat(_Part):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None


class StreamOptions(_Part):
    include_usage: bool | None = None


class Sampling(_Body):
    """What chat and plain completions have in common."""

    model: Name
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    stop: Stop | Annotated[list[Stop], Field(max_length=STOPS_MAX)] | None = None
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, ge=0, le=1)
    max_tokens: int | None = Field(None, ge=1, le=TOKENS_MAX)
    n: int | None = Field(None, ge=1, le=CHOICES_MAX)
    user: Name | None = None
    prompt_cache_key: Name | None = None

    @property
    def stops(self) -> tuple[str, ...]:
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())

    @property
    def counts(self) -> bool:
        """Whether the stream ends with what it cost."""
        return bool(self.stream_options and self.stream_options.include_usage)


class ChatBody(Sampling):
    messages: list[MessageBody] = Field(min_length=1, max_length=MESSAGES_MAX)
    tools: Annotated[list[Tool], Field(max_length=TOOLS_MAX)] | None = None
    tool_choice: Literal["none", "auto", "required"] | ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    response_format: ResponseFormat | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=LOGPROBS_MAX)
    max_completion_tokens: int | None = Field(None, ge=1, le=TOKENS_MAX)


class CompletionBody(Sampling):
    """`prompt` may be tokens only to be told that it may not."""

    prompt: str | Annotated[list[Any], Field(min_length=1, max_length=PROMPTS_MAX)]
    logprobs: int | None = Field(None, ge=0, le=LOGPROBS_MAX)


class EmbeddingBody(_Body):
    model: Name
    input: str | Annotated[list[Any], Field(min_length=1, max_length=INPUTS_MAX)]
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: int | None = Field(None, ge=1)
    user: Name | None = None
