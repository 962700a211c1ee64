"""`python -m simulation`: plays one schedule with its trace, or many."""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
import time

from simulation.many import outcomes
from simulation.planted import BUGS
from simulation.run import Outcome, run

SHOWN_MAX = 5
PROGRESS_EVERY_S = 2.0


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m simulation", description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="the schedule, or the first of many")
    parser.add_argument("--trace", action="store_true", help="one line for each thing that happens")
    parser.add_argument("--schedules", type=int, default=1, metavar="N", help="so many, on all cores")
    parser.add_argument("--planted", default="", choices=BUGS, metavar="BUG", help=", ".join(BUGS))
    parser.add_argument("--models", action="store_true", default=None, help="only worlds with models")
    parser.add_argument("--digest", action="store_true", help="print what all traces together hash to")
    parser.add_argument("--processes", type=int, default=None, metavar="N", help="cores to use; all")
    return parser


def same_hashes() -> None:
    """Starts again with hashes of strings that are the same each time: the order of sets depends on them."""
    if os.environ.get("PYTHONHASHSEED") != "0":
        os.environ["PYTHONHASHSEED"] = "0"
        os.execv(sys.executable, [sys.executable, "-m", "simulation", *sys.argv[1:]])


def command(seed: int, planted: str = "", models: bool | None = None) -> str:
    more = (f" --planted {planted}" if planted else "") + " --models" * bool(models)
    return f"flotilla simulate --seed {seed} --trace{more}"


def play(options: argparse.Namespace) -> int:
    outcome = run(options.seed, tracing=options.trace, planted=options.planted, models=options.models)
    for line in outcome.trace:
        print(line)
    print(
        f"seed {outcome.seed}: {outcome.virtual_s:.1f} s of the world, {outcome.steps} steps, "
        f"{len(outcome.violations)} violations"
    )
    for violation in outcome.violations:
        print(f"  {violation}")
    return bool(outcome.violations)


def _played(seed: int, options: argparse.Namespace) -> Outcome:
    return run(seed, tracing=True, planted=options.planted, models=options.models)


def play_for_digest(options: argparse.Namespace) -> int:
    hashed = hashlib.sha256()
    for seed in range(options.seed, options.seed + options.schedules):
        hashed.update("\n".join(_played(seed, options).trace).encode())
    print(hashed.hexdigest())
    return 0


def play_many(options: argparse.Namespace) -> int:
    seeds = range(options.seed, options.seed + options.schedules)
    failed: list[Outcome] = []
    began = told = time.monotonic()
    played = outcomes(seeds, planted=options.planted, models=options.models, processes=options.processes)
    for done, outcome in enumerate(played, 1):
        if outcome.violations:
            failed.append(outcome)
        if time.monotonic() - told > PROGRESS_EVERY_S:
            told = time.monotonic()
            print(f"{done} of {len(seeds)} schedules, {len(failed)} failed", file=sys.stderr)
    print(f"{len(seeds)} schedules in {time.monotonic() - began:.0f} s, {len(failed)} failed")
    for outcome in sorted(failed, key=lambda outcome: outcome.seed)[:SHOWN_MAX]:
        print(f"seed {outcome.seed}: {outcome.violations[0]}")
        print(f"  {command(outcome.seed, options.planted, options.models)}")
    return bool(failed)


def main() -> None:
    same_hashes()
    options = arguments().parse_args()
    how = play_for_digest if options.digest else play if options.schedules == 1 else play_many
    sys.exit(how(options))


if __name__ == "__main__":
    main()
