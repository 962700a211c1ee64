"""`flotilla models` against a gateway with real actors and replicas: what it asks for, and what it shows."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner, Result

from flotilla.cli import app, models_orders, models_tables, models_watch
from flotilla.cli.models_sources import inspected, is_local
from flotilla.core.errors import FlotillaError, Misconfigured, Refused
from tests.models.test_sources import adapter, model
from tests.serve.conftest import OPERATOR_KEY
from tests.serve.model_world import GATE, SAYS, WRONG, World, world

BANK = Path(__file__).parents[2] / "examples" / "gates" / "bank.jsonl"


@pytest.fixture
async def w(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    async with world() as made:
        monkeypatch.setenv("FLOTILLA_URL", made.url)
        monkeypatch.setenv("FLOTILLA_KEY", OPERATOR_KEY)
        monkeypatch.setenv("USER", "ann")
        monkeypatch.setenv("LOGNAME", "ann")
        yield made


async def run(*words: str) -> Result:
    """As typed, in a thread: the gateway lives in this one."""
    return await asyncio.to_thread(CliRunner().invoke, app, ["models", *words])


async def says(*words: str) -> str:
    done = await run(*words)
    if done.exception is not None:
        raise done.exception
    return done.stdout


# -- versions


async def test_a_local_model_is_looked_into_and_registered(w: World, tmp_path: Path) -> None:
    folder = model(tmp_path / "weights")
    said = await says(
        "add", "m@2", "--source", str(folder), "--setting", "max_model_len=512", "--note", "new"
    )
    version = (await w.view()).versions["m@2"]
    assert (version.source, version.settings) == (str(folder), {"max_model_len": 512})
    assert (version.context_tokens, version.licence, len(version.checksum)) == (512, "apache-2.0", 64)
    assert version.checksum in said and "m@2" in said
    assert (await w.view()).added_by == {"m@2": "other/ann"}


async def test_an_adapter_wants_its_base_and_its_own_option(w: World, tmp_path: Path) -> None:
    await says("add", "m@1", "--engine", "scripted")
    lora = adapter(tmp_path / "lora")
    await says("add", "m@tone", "--adapter", str(lora), "--base", "1")
    assert (await w.view()).versions["m@tone"].base == "m@1"
    with pytest.raises(Refused, match="an adapter") as caught:
        await says("add", "m@3", "--source", str(lora))
    assert caught.value.field == "--adapter"


async def test_what_is_wrong_with_a_source_is_said_before_it_is_registered(w: World, tmp_path: Path) -> None:
    with pytest.raises(Misconfigured) as caught:
        await says("add", "m@2", "--source", str(tmp_path / "nothing"))
    assert caught.value.field == "source"
    with pytest.raises(Refused, match="checksum"):
        await says("add", "m@2", "--source", str(model(tmp_path / "w")), "--checksum", "0" * 64)
    with pytest.raises(Refused, match="names no version"):
        await says("add", "m", "--source", "x")
    with pytest.raises(FlotillaError, match="no model"):
        await says("show", "m")


async def test_the_list_and_a_model_show_who_answers(w: World) -> None:
    assert "no models" in await says("list")
    await w.serving("1")
    listed = await says("list")
    assert "m@1" in listed and "answers" in listed
    assert "fallbacks" not in await says("serve", "m", "--least", "1", "--most", "3")
    shown = await says("show", "m")
    assert "m answers with m@1." in shown and "scripted" in shown and "m@1.0" in shown


# -- swaps


async def test_a_swap_is_begun_warm_watched_and_promoted(w: World) -> None:
    await w.serving("1", "2")
    said = await says("warm", "m", "2")
    assert "from m@1 to m@2 is under way" in said and "No gate" in said
    await w.reach("canary")
    shown = await says("resume", "m")
    assert "m@1 → m@2" in shown
    assert "m@1 → m@2" in await says("pause", "m")
    promoted = await says("promote", "m")
    assert "m@2" in promoted
    assert (await w.view()).plan.route.stable == "m@2"  # type: ignore[union-attr]
    assert "m@1" in await says("rollback", "m", "--reason", "second thoughts")
    seen = await w.reach("rolled_back")
    assert seen["swaps"][0]["reason"] == "second thoughts"


async def test_a_swap_is_followed_to_its_end(
    w: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(models_watch, "EVERY_S", 0.05)
    await w.serving("1", "2")
    path = tmp_path / "gate.json"
    path.write_text(json.dumps(GATE))
    words = ("--gate", str(path), "--canary", "50", "--hold", "0", "--keep", "0", "--watch")
    done = await run("swap", "m", "2", *words)
    assert done.exit_code == 0, done.output
    assert (await w.view()).swaps[0].end == "done"
    assert "No gate" not in done.stdout


async def test_an_order_has_what_was_typed(w: World) -> None:
    await w.serving("1", "2")
    await says("canary", "m", "2", "--percent", "5,10", "--tenant", "t1", "--agent", "t1/bank", "--hold", "7")
    (begun,) = [
        event
        for event in (await w.desk.get("/v1/models/m/history")).json()["events"]
        if event["type"] == "swap.begun"
    ]
    order = begun["data"]["order"]
    assert order["automatic"] is False and begun["data"]["by"] == "other/ann"
    assert [step["canary"]["percent"] for step in order["steps"]] == [5.0, 10.0]
    assert order["steps"][0]["canary"]["agents"] == ["t1/bank"] and order["steps"][1]["hold_s"] == 7.0
    with pytest.raises(FlotillaError, match="under way"):
        await says("shadow", "m", "2")


# -- evaluations


async def test_an_evaluation_shows_answers_and_fails_with_1(w: World, tmp_path: Path) -> None:
    gate = tmp_path / "gate.json"
    gate.write_text(json.dumps(GATE))
    await w.serving("1", script=SAYS)
    done = await run("eval", "m", "1", "--gate", str(gate))
    assert done.exit_code == 0 and "It passes." in done.stdout and "1.00  The Gold Card" in done.stdout
    await w.rig.gone(next(iter(w.rig.replicas.values())))
    await w.rig.start("m@1", settings=WRONG)
    failed = await run("eval", "m", "1", "--gate", str(gate))
    assert failed.exit_code == 1 and "It fails." in failed.stdout and "0.50 are asked for" in failed.stdout


# -- without a fleet


def test_the_banks_gate_can_be_sent() -> None:
    gate = models_orders.gate(BANK)
    assert gate["name"] == "bank" and len(gate["cases"]) == 36
    for case in gate["cases"]:
        assert all(fact in "\n".join(case["context"]) for fact in case["expected"]), case["id"]


def test_a_broken_gate_is_named_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "g.jsonl").write_text('{"id": "a", "question": "?"}\n{"id": "b", "qestion": "?"}\n')
    with pytest.raises(Refused) as caught:
        models_orders.gate(tmp_path / "g.jsonl")
    assert "ine 2" in (caught.value.detail + (caught.value.field or ""))
    with pytest.raises(Refused, match="can't be read"):
        models_orders.gate(tmp_path / "none")


@pytest.mark.parametrize("typed", ["5,x", "101", "-1"])
def test_what_is_no_percentage_is_refused(typed: str) -> None:
    with pytest.raises(Refused, match="no percentage"):
        models_orders.order(None, 0, typed, 1.0)


def test_settings_are_json_where_they_are_json() -> None:
    assert models_orders.settings(["a=1", "b=true", "c=bf16", 'd={"e": [1]}']) == {
        "a": 1,
        "b": True,
        "c": "bf16",
        "d": {"e": [1]},
    }
    with pytest.raises(Refused, match="no setting"):
        models_orders.settings(["a"])


def test_what_is_local() -> None:
    assert [is_local(s) for s in ("x", "/x", "file:///x", "package:p", "s3://b/x", "hf://a/b", "")] == [
        *(True,) * 4,
        *(False,) * 3,
    ]


def test_looking_into_nothing_says_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="isn't there"):
        inspected(str(tmp_path / "none"))


def test_a_moment_of_a_swap_stands_side_by_side() -> None:
    figures: dict[str, Any] = {"replies": 12, "first_token_p95": 87.4, "tokens_per_s": 40.0}
    swap = {"id": "sw_1", "from": "m@1", "to": "m@2", "stage": "canary", "step": 0, "steps": 3}
    seen = {
        "name": "m",
        "serving": {"stable": "m@1", "canary": {"percent": 5.0}},
        "swap": swap | {"paused": True, "waits": False, "gated": False, "back": False, "reason": ""},
        "swaps": [],
        "figures": {"m@1": {"sent": figures}, "m@2": {"sent": figures | {"judged": 3, "quality": 0.5}}},
        "replicas": [],
        "notes": ["The [figures] are old."],
    }
    text = Console(width=120, record=True)
    with text.capture() as shown:
        text.print(models_tables.moment(seen, ("07:00:00  swap.went  canary [1]",)))
    said = shown.get()
    assert "m@1 → m@2: canary 1 of 3, 5 % of the conversations; paused; without a gate." in said
    assert "87" in said and "0.50" in said and "The [figures] are old." in said and "canary [1]" in said


# -- going on, dropping


async def test_the_first_version_is_to_be_served_and_another_one_to_be_swapped_to(w: World) -> None:
    assert "flotilla models serve m 1" in await says("add", "m@1", "--engine", "scripted")
    await w.desk.post("/v1/models/m/serve", json={"version": "1"})
    assert "flotilla models swap m 2" in await says("add", "m@2", "--engine", "scripted")


async def test_a_promotion_is_resumed_and_the_old_version_dropped(w: World) -> None:
    await w.serving("1", "2")
    await says("swap", "m", "2", "--manual", "--canary", "50", "--hold", "0")
    await w.reach("canary")
    assert "`resume` retires m@1 now" in await says("promote", "m")
    with pytest.raises(FlotillaError, match="part of the swap"):
        await says("drop", "m", "1")
    await says("resume", "m")
    await w.reach("done")
    said = await says("drop", "m", "m@1")
    assert set((await w.view()).versions) == {"m@2"} and "m@2" in said
