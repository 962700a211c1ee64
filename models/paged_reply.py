"""From a prompt to a request of vLLM's, and from its outputs to what the port promises. Its exceptions end
here."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal, NoReturn

from flotilla.core.errors import Overloaded, Refused, Unavailable
from flotilla.core.generation import (
    Alternative,
    Finished,
    Generated,
    Piece,
    Prompt,
    TokenLogprob,
    ToolCall,
    Usage,
)
from models.adapters import Adapter
from models.chat import Encoded, Unsaid
from models.structured import tools_of
from models.tool_text import ToolReader

if TYPE_CHECKING:
    from vllm import SamplingParams
    from vllm.inputs import TokensInput
    from vllm.lora.request import LoRARequest
    from vllm.outputs import CompletionOutput, RequestOutput

BUSY_RETRY_S = 2.0
DOWN_RETRY_S = 30.0
LOGPROBS_MAX = 20


# -- to the engine


def sampling(prompt: Prompt, encoded: Encoded, budget: int, schema: str, closeness: float) -> SamplingParams:
    """Raises `Refused`, with the field, for settings that can't be."""
    from vllm import SamplingParams  # noqa: PLC0415  (see `paged_start.import_vllm`)
    from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams  # noqa: PLC0415

    if prompt.logprobs is not None and not 0 <= prompt.logprobs <= LOGPROBS_MAX:
        raise Refused(
            f"No {prompt.logprobs} logprobs.", field="logprobs", next=f"Ask for 0 to {LOGPROBS_MAX}."
        )
    held = StructuredOutputsParams(json=schema, disable_any_whitespace=True) if schema else None
    try:
        return SamplingParams(
            max_tokens=budget,
            temperature=prompt.temperature,
            top_p=prompt.top_p,
            seed=prompt.seed,
            stop=list(prompt.stop),
            logprobs=prompt.logprobs,
            structured_outputs=held,
            output_kind=RequestOutputKind.DELTA,
            extra_args=_steering(encoded, closeness),
            skip_clone=True,
        )
    except Exception as error:
        translate(error)


def _steering(encoded: Encoded, closeness: float) -> dict[str, Any]:
    """For our two processors in the engine."""
    from models import closeness as close  # noqa: PLC0415  (see `paged_start.import_vllm`)
    from models import replay  # noqa: PLC0415

    held = {replay.KEY: encoded.replay} if encoded.replay else {}
    near = encoded.sources and closeness
    return held | ({close.KEY: (closeness, encoded.sources, encoded.said_tokens)} if near else {})


def tokens_of(ids: list[int], tenant: str) -> TokensInput:
    """Prefixes are shared within a tenant, never across: nobody can find out by a reply's first-token time
    what others have asked."""
    from vllm.inputs import tokens_input  # noqa: PLC0415  (see `paged_start.import_vllm`)

    return tokens_input(ids, cache_salt=tenant or None)


def lora_of(adapter: Adapter) -> LoRARequest:
    from vllm.lora.request import LoRARequest  # noqa: PLC0415  (see `paged_start.import_vllm`)

    return LoRARequest(adapter.label, adapter.number, adapter.folder)


# -- from the engine


class Reply:
    """One request's outputs, made into pieces and the end. A piece is what one engine step added, but for
    text that may be a tool's."""

    def __init__(self, prompt: Prompt, encoded: Encoded) -> None:
        tools = tools_of(prompt)
        self._unsaid = Unsaid(encoded.replay)
        self._tools = ToolReader([tool.name for tool in tools]) if tools else None
        self._unseen = 0
        self._logprobs: list[TokenLogprob] = []

    def take(self, step: RequestOutput) -> Iterator[Generated]:
        output = step.outputs[0]
        self._unseen += len(output.token_ids)
        replaying = not self._unsaid.done
        text = self._unsaid.take(output.text)
        if not replaying or text:
            self._logprobs += _logprobs(output)
        if self._tools is not None:
            text = self._tools.take(text) + (self._tools.end() if step.finished else "")
        if text:
            yield Piece(text=text, tokens=self._unseen, logprobs=tuple(self._logprobs))
            self._unseen, self._logprobs = 0, []
        if step.finished:
            yield _finished(step, self._tools.calls if self._tools is not None else ())


def _logprobs(output: CompletionOutput) -> Iterator[TokenLogprob]:
    for id, likely in zip(output.token_ids, output.logprobs or (), strict=False):
        if likely is None or id not in likely:
            continue
        said = likely[id]
        ranked = sorted(likely.values(), key=lambda other: other.rank or 0)
        yield TokenLogprob(
            token=said.decoded_token or "",
            logprob=said.logprob,
            top=tuple(Alternative(token=o.decoded_token or "", logprob=o.logprob) for o in ranked),
        )


def _finished(step: RequestOutput, calls: tuple[ToolCall, ...]) -> Finished:
    """The end, on the engine's own clock. Raises `Unavailable` if it is not the end of a reply."""
    reason, stats = step.outputs[0].finish_reason, step.metrics
    if reason in ("abort", "error") or stats is None:
        raise down(f"The engine gave the reply up ({reason}).")
    decode_s = stats.last_token_ts - stats.first_token_ts
    return Finished(
        reason="tools" if calls else _REASONS.get(reason or "", "stop"),
        usage=Usage(
            prompt_tokens=len(step.prompt_token_ids or ()),
            completion_tokens=stats.num_generation_tokens,
            cached_tokens=step.num_cached_tokens or 0,
        ),
        first_token_ms=1000 * stats.first_token_latency,
        total_ms=1000 * (stats.first_token_latency + decode_s),
        calls=calls,
    )


_REASONS: dict[str, Literal["stop", "length"]] = {"length": "length"}


def nothing_left(encoded: Encoded) -> Finished:
    usage = Usage(prompt_tokens=len(encoded.ids))
    return Finished(reason="length", usage=usage, first_token_ms=0.0, total_ms=0.0)


def translate(error: Exception) -> NoReturn:
    """Raises what the port promises in place of an exception of vLLM's."""
    from vllm.exceptions import GracefulHTTPError, VLLMClientError  # noqa: PLC0415

    if isinstance(error, GracefulHTTPError):
        raise Overloaded(str(error), retry_after_s=BUSY_RETRY_S) from error
    if isinstance(error, VLLMClientError):
        named = getattr(error, "parameter", None)
        field = named if named in Prompt.__struct_fields__ else None
        raise Refused(str(error), field=field, next="Change the prompt or its settings.") from error
    raise down(f"The engine failed: {error}") from error


def down(detail: str) -> Unavailable:
    return Unavailable(detail, next="The fleet starts a new engine.", retry_after_s=DOWN_RETRY_S)
