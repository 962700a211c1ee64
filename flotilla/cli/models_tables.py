"""Models as tables."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.table import Column, Table
from rich.text import Text

from flotilla.cli.screen import console

PIPE_WIDTH = 10_000
ANSWER_CHARACTERS = 100

Seen = dict[str, Any]
"""A model as the API shows it."""


def _print(*found: RenderableType) -> None:
    # In a pipe there is no width to keep to, and a name that is cut is no name.
    out = console if console.is_terminal else Console(highlight=False, width=PIPE_WIDTH)
    out.print(*found, sep="\n")


def _table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> Table:
    table = Table(*(Column(head, overflow="fold") for head in heads), box=None)
    for row in rows:
        table.add_row(*(Text("–" if value in (None, "") else str(value)) for value in row))
    return table


# -- models and versions


def show_list(models: list[Seen]) -> None:
    if not models:
        console.print("There are no models: see `flotilla models add --help`.")
        return
    names = ("name", "stable", "candidate", "stage", "percent", "versions", "replicas")
    heads = ("model", "answers", "swaps to", "stage", "canary %", "versions", "replicas")
    _print(_table(heads, ([model[name] for name in names] for model in models)))


def show_model(seen: Seen) -> None:
    serving = seen["serving"]
    if serving is None:
        _print(f"[bold]{seen['name']}[/] answers with no version: see `flotilla models serve --help`.")
    else:
        instead = ", ".join(serving.get("fallbacks", ()))
        more = f"; {instead} when it can't" if instead else ""
        _print(f"[bold]{seen['name']}[/] answers with {serving['stable']}{more}.")
    _print("", _versions(seen), "", *_moment(seen))
    if seen["swaps"]:
        _print("\nLast swaps:", _past(seen["swaps"]))


def _versions(seen: Seen) -> Table:
    heads = ("version", "engine", "weights", "context", "licence", "score", "loaded", "added by")
    return _table(heads, (_version(version, seen) for version in seen["versions"]))


def _version(version: Seen, seen: Seen) -> Sequence[object]:
    score = seen["scores"].get(version["id"], {}).get("quality")
    source = version.get("adapter") or version.get("source")
    base = f"{source or 'adapter'} on {version['base']}" if version.get("base") else source
    return (
        version["id"],
        version.get("engine", "vllm"),
        base,
        version.get("context_tokens"),
        version.get("licence"),
        None if score is None else f"{score:.2f}",
        "yes" if version["placed"] else None,
        version["added_by"],
    )


def show_added(model: str, body: Seen, seen: Seen) -> None:
    """`body` is what was sent, `seen` the model now."""
    shown = {"version": f"{model}@{body['name']}"} | {
        name: value for name, value in body.items() if value and name not in ("name", "price", "by")
    }
    table = Table(box=None, show_header=False)
    for name, value in shown.items():
        table.add_row(Text(name, style="dim"), Text(str(value), overflow="fold"))
    _print(table)
    verb, what = ("swap", "brings it to customers") if seen["serving"] else ("serve", "has it answer")
    _print(f"It is registered; `flotilla models {verb} {model} {body['name']}` {what}.")


# -- a swap


def show_swap(seen: Seen) -> None:
    _print(Group(*_moment(seen)))


def moment(seen: Seen, log: Sequence[str] = ()) -> Group:
    """All that there is to watch."""
    return Group(Text(seen["name"], style="bold"), *_moment(seen), "", *map(Text, log))


def _moment(seen: Seen) -> Iterator[RenderableType]:
    yield _stage(seen)
    yield _sides(seen)
    if seen["replicas"]:
        yield _replicas(seen["replicas"])
    for note in seen["notes"]:
        yield Text.assemble(("! ", "yellow"), note)


def _stage(seen: Seen) -> RenderableType:
    swap = seen["swap"]
    if swap is None:
        last = seen["swaps"][0] if seen["swaps"] else None
        if last is None:
            return "No swap is under way."
        why = f" ({last['reason']})" if last.get("reason") else ""
        return Text(f"No swap is under way; the last one, to {last['to']}, ended: {last['end']}{why}.")
    at = swap["stage"]
    if at == "canary":
        percent = (seen["serving"] or {}).get("canary", {}).get("percent", 0.0)
        at += f" {swap['step'] + 1} of {swap['steps']}, {percent:g} % of the conversations"
    said = [at]
    said += ["on its way back: " + swap["reason"]] if swap.get("back") else []
    said += ["paused"] if swap["paused"] else []
    said += ["waits for `promote`, `resume` or `rollback`"] if swap["waits"] else []
    said += ["without a gate"] if not swap["gated"] else []
    said += [f"`resume` retires {swap['from']} now"] if _kept(swap) else []
    return Text(f"{swap['from']} → {swap['to']}: {'; '.join(said)}.")


def _kept(swap: Seen) -> bool:
    return swap["stage"] == "promoted" and not (swap["paused"] or swap.get("back"))


_FIGURES = (
    ("replies", "replies", "{:.0f}"),
    ("errors", "errors", "{:.0f}"),
    ("first token p50 (ms)", "first_token_p50", "{:.0f}"),
    ("first token p95 (ms)", "first_token_p95", "{:.0f}"),
    ("first token p99 (ms)", "first_token_p99", "{:.0f}"),
    ("tokens/s", "tokens_per_s", "{:.1f}"),
    ("quality", "quality", "{:.2f}"),
)


def _sides(seen: Seen) -> Table:
    """Both versions side by side; of a shadow's replies, those that nobody was sent."""
    swap, stable = seen["swap"], (seen["serving"] or {}).get("stable")
    ids = [swap["from"], swap["to"]] if swap else [stable] if stable else []
    columns = [(id, kind) for id in ids for kind in ("sent", "shadow") if kind in seen["figures"].get(id, {})]
    heads = ["", *(id if kind == "sent" else f"{id} (shadow)" for id, kind in columns)]
    found = [seen["figures"][id][kind] for id, kind in columns]
    rows = [[head, *(_figure(side, name, form) for side in found)] for head, name, form in _FIGURES]
    return _table(heads, rows if columns else ())


def _figure(side: Seen, name: str, form: str) -> str | None:
    if name == "quality" and not side.get("judged"):
        return None
    return form.format(side.get(name, 0))


def _replicas(replicas: list[Seen]) -> Table:
    heads = ("replica", "serves", "state", "running", "waiting", "first token (ms)", "cache", "adapters")
    return _table(heads, (_replica(replica) for replica in replicas))


def _replica(replica: Seen) -> Sequence[object]:
    load = replica["load"]
    return (
        replica["name"],
        replica["version"],
        replica["state"],
        f"{load.get('running', 0):.0f}",
        f"{load.get('waiting', 0):.0f}",
        f"{load.get('first_token_ms', 0):.0f}",
        f"{load.get('cache_used', 0):.0%}",
        ", ".join(replica["adapters"]),
    )


def _past(swaps: list[Seen]) -> Table:
    rows = ((swap["id"], swap["from"], swap["to"], swap["end"], swap["reason"], swap["by"]) for swap in swaps)
    return _table(("swap", "from", "to", "end", "reason", "by"), rows)


# -- an evaluation


def show_evaluation(found: Seen) -> None:
    versions = list(found["answers"])
    cases = zip(*found["answers"].values(), strict=True)
    rows = [(sides[0]["case"], *(_answer(side) for side in sides)) for sides in cases]
    verdict = found["verdict"]
    sides = [side for side in (verdict["candidate"], verdict.get("stable")) if side]
    scores = ", ".join(f"{side['version']} {side.get('quality', 0):.2f}" for side in sides)
    _print(_table(("case", *versions), rows), f"\nMean score: {scores}.")
    for reason in verdict.get("reasons", ()):
        _print(Text.assemble(("✗ ", "red"), reason))
    for note in verdict.get("notes", ()):
        _print(Text.assemble(("! ", "yellow"), note))
    _print("[green]It passes.[/]" if verdict["passed"] else "[red]It fails.[/]")


def _answer(side: Seen) -> str:
    if side["problem"]:
        return f"✗ {side['problem']}"
    text = " ".join(side["text"].split())
    cut = text[:ANSWER_CHARACTERS] + ("…" if len(text) > ANSWER_CHARACTERS else "")
    return f"{side['score']:.2f}  {cut}"
