"""One benchmark a hop: `python -m benchmarks.hops [--quick] [--json FILE]`.

A gateway's echo, a link, a mailbox, the journal, the hot log, retrieval, first tokens, a stream: each alone, with
nothing else going on. The sum of the hops that a turn passes stands beside its first token; what is left is
the work between them. Processor time is that of each process for one operation, idle use taken off.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from benchmarks.hops import inside, through
from benchmarks.hops.measuring import Hop, Seconds
from benchmarks.report import Result, arguments, report

CPU_SHOWN = 4


def main() -> None:
    options = arguments("hops", (__doc__ or "").splitlines()[0]).parse_args()
    found = asyncio.run(inside.hops(500 if options.quick else 2_000))
    found += through.hops(20 if options.quick else 80)
    show(found)
    report("hops", results(found), options.json)


def show(found: Sequence[Hop]) -> None:
    table = Table(
        "hop", "p50 (ms)", "p95 (ms)", "CPU an operation (µs)", "", title="hops", title_justify="left"
    )
    for hop in found:
        p50, p95 = hop.percentile(50), hop.percentile(95)
        table.add_row(hop.name, f"{p50:.3f}", f"{p95:.3f}", _cpu(hop.cpu_us), hop.about)
    console = Console(width=160)
    console.print(table)
    console.print(_sums(found))


def _cpu(cpu_us: Seconds) -> str:
    shown = [f"{name} {us:,.0f}" for name, us in list(cpu_us.items())[:CPU_SHOWN]]
    rest = sum(list(cpu_us.values())[CPU_SHOWN:])
    return ", ".join([*shown, f"others {rest:,.0f}"] if rest else shown)


def _sums(found: Sequence[Hop]) -> Table:
    """What a turn passes on its way to the first token, against what it takes in all."""
    table = Table("first token (p50)", "hops (ms)", "measured (ms)", "between them (ms)", "", box=None)
    for agent in ("chat", "bank"):
        parts = passed(found, agent)
        total, first = sum(parts.values()), _of(found, f"first token, {agent}").percentile(50)
        told = " + ".join(f"{name} {ms:.2f}" for name, ms in parts.items())
        table.add_row(agent, f"{total:.2f}", f"{first:.2f}", f"{first - total:.2f}", told)
    return table


def passed(found: Sequence[Hop], agent: str) -> dict[str, float]:
    """Milliseconds (p50) of each hop, as often as a turn passes it."""
    parts = {
        f"{hop.passed} × {hop.name}" if hop.passed > 1 else hop.name: hop.passed * hop.percentile(50)
        for hop in found
        if hop.passed
    }
    return parts if agent == "chat" else parts | {"retrieval": _of(found, "retrieval").percentile(50)}


def _of(found: Sequence[Hop], name: str) -> Hop:
    return next(hop for hop in found if hop.name == name)


def results(found: Sequence[Hop]) -> list[Result]:
    rows = [
        Result(
            measure=f"{hop.name.replace(', ', '_').replace(' ', '_').replace('-', '_').lower()}_p{quantile}_ms",
            value=round(hop.percentile(quantile), 4),
            unit="ms",
            better="lower",
            target=5.0 if hop.name == "first token, chat" and quantile == 50 else None,
            samples=len(hop.ms),
        )
        for hop in found
        for quantile in (50, 95)
    ]
    sums = [
        Result(
            measure=f"sum_of_hops_{agent}_ms",
            value=round(sum(passed(found, agent).values()), 3),
            unit="ms",
            better="lower",
            peer="first_token_p50_ms",
            peer_value=round(_of(found, f"first token, {agent}").percentile(50), 3),
        )
        for agent in ("chat", "bank")
    ]
    return rows + sums


if __name__ == "__main__":
    main()
