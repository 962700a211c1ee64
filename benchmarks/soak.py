"""Everything that can die dies at random under load, for as long as you like: `python -m benchmarks.soak`.

    python -m benchmarks.soak [--minutes 20] [--seed N] [--faults "host killed,GCS stopped"]

In rounds: some customers talk, one to three faults happen at once or one behind the other, all is mended, the
customers hear the ends of their replies, and the checker of the simulator judges what they have noted. The
first broken promise ends it, with the story of the conversation that suffered it. The seed chooses the faults
and their times; what happens in between is up to the machine.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import time
from collections import Counter

import msgspec

from benchmarks.crowd import DOCUMENTS, Broken, Crowd, talking
from benchmarks.faults import FAULTS, hosts, until
from benchmarks.fleet import OwnFleet
from benchmarks.nodes import TwoNodes

CUSTOMERS = 24
TOKEN_S = 0.04
APART_S = 8.0
# Those that stop the same process, or need what the other one takes away, wait for each other.
ALONE = {"raylet killed", "GCS stopped"}


class Tally(msgspec.Struct):
    rounds: int = 0
    replies: int = 0
    observed: int = 0
    faults: Counter[str] = msgspec.field(default_factory=Counter)


async def soak(fleet: OwnFleet, minutes: float, seed: int, names: list[str]) -> Tally:
    """Raises `Broken` for the first promise that was."""
    chance, tally = random.Random(seed), Tally()
    end = time.monotonic() + minutes * 60
    while time.monotonic() < end:
        tally.rounds += 1
        faults = _chosen(chance, names)
        print(f"round {tally.rounds}: {', '.join(faults)}", flush=True)
        async with talking(fleet, CUSTOMERS, seed + tally.rounds) as crowd:
            await asyncio.gather(*(_one(fleet, crowd, fault, APART_S * chance.random()) for fault in faults))
            await crowd.until_replies(CUSTOMERS)
        tally.faults.update(faults)
        tally.replies += crowd.replies
        tally.observed += len(crowd.log.observations)
        await until(lambda: bool(hosts(fleet)))
    return tally


def _chosen(chance: random.Random, names: list[str]) -> list[str]:
    first = chance.choice(names)
    others = sorted(set(names) - ALONE - {first})
    if first in ALONE or not others:
        return [first]
    picked = [first, *chance.sample(others, min(len(others), chance.choice((0, 0, 1, 2))))]
    stores = [name for name in picked if name.split()[0] in ("Valkey", "PostgreSQL")]
    # A server that is killed while it is stopped is not killed at all.
    return [name for name in picked if name not in stores[1:]]


async def _one(fleet: OwnFleet, crowd: Crowd, fault: str, after_s: float) -> None:
    await asyncio.sleep(after_s)
    await FAULTS[fault](fleet, crowd, True)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--seed", type=int, default=None, help="chosen, and printed, if not given")
    parser.add_argument("--faults", default=",".join(FAULTS), help="those to choose from")
    return parser.parse_args()


def main() -> None:
    options = arguments()
    seed = random.randrange(10**6) if options.seed is None else options.seed
    print(f"seed {seed}", flush=True)
    fleet = TwoNodes(FLOTILLA_SCRIPTED_TOKEN_S=str(TOKEN_S))
    try:
        fleet.up().know("bank", DOCUMENTS)
        tally = asyncio.run(soak(fleet, options.minutes, seed, options.faults.split(",")))
    except Broken as broken:
        print(f"{broken}\n\nBROKEN. The seed was {seed}.\n{fleet.logs()}", file=sys.stderr)
        sys.exit(1)
    finally:
        fleet.down()
    print(
        f"\nNothing acknowledged was lost, doubled or reordered: {tally.rounds} rounds, "
        f"{tally.replies} replies, {tally.observed} things seen. Seed {seed}."
    )
    for fault, times in tally.faults.most_common():
        print(f"{times:5}  {fault}")


if __name__ == "__main__":
    main()
