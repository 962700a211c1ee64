"""What happens to a running vLLM engine: cancelled requests, adapters, other weights, bad input. Its model is
a tiny one that says nonsense: nothing here depends on what it says."""

from __future__ import annotations

import asyncio
import json
import shutil
from contextlib import aclosing
from pathlib import Path
from time import perf_counter
from typing import Any

import msgspec
import psutil
import pytest

from flotilla.core.errors import AdapterMissing, Conflict, Misconfigured, Overloaded, Refused, Unsupported
from flotilla.core.generation import Generated, Origin, Piece, Prompt
from flotilla.core.versions import Version
from models.engines import open_engine
from models.neighbours import Seat
from models.paged import VllmModel
from models.restraint import cores
from models.variants import adapted, tiny
from tests.contracts import abilities
from tests.contracts.abilities import ask, end_of, run, said_by
from tests.models.conftest import CACHE
from tests.timing import until, within

CANCEL_S_MAX = 0.05
pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(300)]


async def has_work(engine: VllmModel) -> bool:
    """Whether vLLM's scheduler, in its own process, knows of a request."""
    return await engine._running.engine_core.call_utility_async("has_work")  # type: ignore[reportPrivateUsage]


async def test_a_version_says_how_it_is_opened(engine: VllmModel) -> None:
    assert engine.name == "tiny@1"
    with pytest.raises(Refused) as refused:
        await run(engine, ask("word " * 1100))
    assert "1024" in refused.value.detail


async def test_cancelling_frees_the_engine_at_once(engine: VllmModel) -> None:
    async def cancel() -> float:
        async with aclosing(engine.generate(ask("Hi", tokens_max=900, temperature=1.0))) as stream:
            assert isinstance(await anext(stream), Piece)
            assert await has_work(engine)
            closed_at = perf_counter()
        while await has_work(engine):
            pass
        return perf_counter() - closed_at

    await within(CANCEL_S_MAX, cancel)


async def test_it_waits_asleep_while_another_engine_is_busy_on_its_cores(
    engine: VllmModel, seats: Path
) -> None:
    """An idle team beside its own has its process do so, one thread more than there are cores."""
    alone = threads_of_engine()
    other = Seat(cores(), seats)
    await until(lambda: threads_of_engine() >= alone + cores(), pause_s=0.05)
    await run(engine, ask("Hi", tokens_max=5))
    other.idle()
    await until(lambda: threads_of_engine() <= alone, pause_s=0.05)
    other.leave()
    await run(engine, ask("Hi", tokens_max=5))


def threads_of_engine() -> int:
    """Of the process that vLLM has started."""
    return max(child.num_threads() for child in psutil.Process().children(recursive=True))


async def test_adapters_come_and_go(engine: VllmModel, base: Path) -> None:
    await abilities.serves_adapters(engine, [adapted(base, seed=seed) for seed in range(3)])


async def test_no_adapter_goes_while_it_is_used(engine: VllmModel, base: Path) -> None:
    folders = [str(adapted(base, seed=seed)) for seed in range(3)]
    for id, folder in zip("ab", folders, strict=False):
        await engine.load_adapter(id, folder)
    prompt = ask("Hi", tokens_max=60)
    whole = await said_by(engine, msgspec.structs.replace(prompt, adapter="a"))
    used = [engine.generate(msgspec.structs.replace(prompt, adapter=id)) for id in "ab"]
    texts = ["", ""]
    for at, stream in enumerate(used):
        texts[at] += (await anext(stream)).text  # type: ignore[union-attr]
    with pytest.raises(Overloaded) as full:
        await engine.load_adapter("c", folders[2])
    assert full.value.retry_after_s
    await engine.unload_adapter("a")  # to be made to its end, but not begun
    with pytest.raises(AdapterMissing):
        await run(engine, msgspec.structs.replace(prompt, adapter="a"))
    texts[0] += "".join([g.text async for g in used[0] if isinstance(g, Piece)])
    assert texts[0] == whole
    await engine.load_adapter("c", folders[2])  # its place is free now
    assert set(engine.load().adapters) == {"b", "c"}
    await used[1].aclose()
    for id in "bc":
        await engine.unload_adapter(id)


def logprobs_of(parts: list[Generated]) -> list[float]:
    """One a token: a piece may have several."""
    return [token.logprob for part in parts if isinstance(part, Piece) for token in part.logprobs]


async def test_whoever_uses_no_adapter_is_not_changed_by_those_who_do(engine: VllmModel, base: Path) -> None:
    """All places are taken, and both are made in the same steps."""
    prompt = ask("Hi", tokens_max=24, logprobs=0)
    alone = logprobs_of(await run(engine, prompt))
    for seed, id in enumerate("ab"):
        await engine.load_adapter(id, str(adapted(base, seed=seed)))
    others = [run(engine, msgspec.structs.replace(prompt, adapter=id)) for id in "ab"]
    beside, *_ = await asyncio.gather(run(engine, prompt), *others)
    found = logprobs_of(beside)
    assert found == pytest.approx(alone, abs=1e-3)
    for id in "ab":
        await engine.unload_adapter(id)


async def test_an_adapter_loaded_anew_has_no_old_prefixes(
    engine: VllmModel, base: Path, tmp_path: Path
) -> None:
    """The same id and folder, other content."""
    prompt = ask("word " * 100, tokens_max=1, logprobs=0, adapter="a")
    found: list[float] = []
    for seed in (0, 1):
        shutil.rmtree(tmp_path / "lora", ignore_errors=True)
        shutil.copytree(adapted(base, seed=seed), tmp_path / "lora")
        await engine.load_adapter("a", str(tmp_path / "lora"))
        out = await run(engine, prompt)
        assert end_of(out).usage.cached_tokens == 0
        found.append(out[0].logprobs[0].logprob)  # type: ignore[union-attr]
        await engine.unload_adapter("a")
    assert found[0] != found[1]


async def test_bad_adapters_never_reach_the_engine(engine: VllmModel, base: Path, tmp_path: Path) -> None:
    await abilities.refuses_an_adapter_that_is_none(engine, tmp_path)
    await abilities.refuses_an_adapter_that_is_none(engine, adapted(tiny(CACHE, hidden=256)))
    await abilities.refuses_an_adapter_that_is_none(engine, adapted(base, rank=16))


async def test_other_weights_in_place(engine: VllmModel, base: Path) -> None:
    await engine.load_adapter("a", str(adapted(base)))
    await abilities.takes_other_weights(engine, tiny(CACHE, seed=1), base)
    assert engine.load().adapters == ()


def likeliest(folder: Path, text: str) -> list[float]:
    """The logarithms of the three largest probabilities of the next token, by transformers."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    ids = AutoTokenizer.from_pretrained(folder)(text, return_tensors="pt").input_ids
    with torch.no_grad():
        logits = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)(ids).logits[0, -1]
    return logits.log_softmax(-1).topk(3).values.tolist()


async def test_all_of_the_other_weights_are_there(engine: VllmModel, base: Path) -> None:
    """The output layer too, which shares the embedding's."""
    text, name = "The bank opens at", engine.name
    for folder in (tiny(CACHE, seed=1), base):
        await engine.reload(str(folder), name)
        out = await run(engine, Prompt(raw=text, tokens_max=1, logprobs=3))
        found = [other.logprob for other in out[0].logprobs[0].top]  # type: ignore[union-attr]
        assert found == pytest.approx(likeliest(folder, text), abs=1e-3)


async def test_weights_that_do_not_fit_change_nothing(engine: VllmModel, tmp_path: Path) -> None:
    await abilities.keeps_its_weights(engine, tmp_path / "nothing")
    await abilities.keeps_its_weights(engine, tiny(CACHE, hidden=256))


async def test_weights_that_fail_while_they_load_are_taken_back(
    engine: VllmModel, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their headers are right when they are checked; then they are gone."""
    gone = tmp_path / "gone"
    shutil.copytree(tiny(CACHE, seed=1), gone)
    real = engine._replace  # type: ignore[reportPrivateUsage]

    async def late(*args: Any) -> None:
        (gone / "model.safetensors").unlink()
        await real(*args)

    monkeypatch.setattr(engine, "_replace", late)
    await abilities.keeps_its_weights(engine, gone)


async def test_nothing_is_reloaded_under_a_reply(engine: VllmModel) -> None:
    async with aclosing(engine.generate(ask("Hi", tokens_max=900))) as stream:
        await anext(stream)
        with pytest.raises(Conflict):
            await engine.reload(str(tiny(CACHE, seed=1)), "another")


async def test_schemas_that_cannot_be_compiled(engine: VllmModel) -> None:
    bad: list[dict[str, Any]] = [
        {"type": "nonsense"},
        {"type": "integer", "multipleOf": 3},
        {"$ref": "http://example.com/schema"},
        {"$ref": "#/$defs/nobody"},
        {"type": "string", "pattern": "((("},
        {"enum": [f"choice {n}" for n in range(10_000)]},
    ]
    for schema in bad:
        with pytest.raises(Refused) as refused:
            await run(engine, ask("Hi", schema=json.dumps(schema)))
        assert (refused.value.field, bool(refused.value.next)) == ("schema", True)
    with pytest.raises(Refused) as refused:
        await run(engine, ask("Hi", schema='{"type": "object"}', said="{"))
    assert refused.value.field == "said"


@pytest.mark.parametrize(("field", "value"), [("top_p", 3.0), ("temperature", -1.0), ("logprobs", 50)])
async def test_settings_out_of_range_are_named(engine: VllmModel, field: str, value: float) -> None:
    with pytest.raises(Refused) as refused:
        await run(engine, ask("Hi", **{field: value}))
    assert refused.value.field == field


async def test_prefixes_are_shared_within_a_tenant_only(engine: VllmModel) -> None:
    prompt = ask("word " * 200, tokens_max=1)

    async def cached(tenant: str) -> int:
        asked = msgspec.structs.replace(prompt, origin=Origin(tenant=tenant))
        return end_of(await run(engine, asked)).usage.cached_tokens

    assert [await cached("acme") > 0 for _ in range(2)] == [False, True]
    assert [await cached("other") > 0 for _ in range(2)] == [False, True]


async def test_load_counts_who_waits(engine: VllmModel) -> None:
    prompts = [ask(f"{n} " * 50, tokens_max=30) for n in range(40)]  # 32 run at once
    tasks = [asyncio.create_task(run(engine, prompt)) for prompt in prompts]
    most, queued = 0, 0
    while not all(task.done() for task in tasks):
        load = engine.load()
        most, queued = max(most, load.running), max(queued, load.queued_tokens)
        assert load.running + load.waiting <= 40
        await asyncio.sleep(0.001)
    assert (most, queued > 1000) == (32, True)
    load = engine.load()
    assert (load.running, load.waiting, load.queued_tokens, load.cache_used) == (0, 0, 0, 0.0)


async def test_sleep_is_for_gpus(engine: VllmModel) -> None:
    for change in (engine.sleep, engine.wake):
        with pytest.raises(Unsupported):
            await change()


async def test_a_setting_that_nobody_knows_is_named(base: Path) -> None:
    version = Version(model="tiny", name="2", source=str(base), settings={"max_modl_len": 1})
    with pytest.raises(Misconfigured) as misspelt:
        await open_engine(version, str(base), threads=1)
    assert misspelt.value.field == "settings.max_modl_len"


async def test_weights_that_cannot_run_are_refused_before_the_engine_starts(
    base: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "odd"
    shutil.copytree(base, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"architectures": ["AbacusForCausalLM"]}))
    version = Version(model="odd", name="1", source=str(folder))
    with pytest.raises(Misconfigured, match="AbacusForCausalLM") as odd:
        await open_engine(version, str(folder), threads=1)
    assert odd.value.field == "source"
    large = Version(model="tiny", name="3", source=str(base), settings={"kv_cache_bytes": 1 << 50})
    with pytest.raises(Misconfigured, match="too large for this machine") as large_error:
        await open_engine(large, str(base), threads=1)
    assert large_error.value.field == "source"
