"""Schedules of faults on the real runtime, and the bugs that the checker must see: `python -m benchmarks.simulate`."""

from __future__ import annotations

from benchmarks.report import Result, arguments, report
from simulation.many import first_catch, outcomes
from simulation.planted import BUGS

SCHEDULES, QUICK_SCHEDULES = 10_000, 1_000


def measure(schedules: int) -> list[Result]:
    violations = sum(len(outcome.violations) for outcome in outcomes(range(schedules)))
    caught = [bug for bug in BUGS if first_catch(bug) is not None]
    return [
        Result(measure="schedules", value=schedules, unit="1", better="higher", target=SCHEDULES),
        Result(measure="violations", value=violations, unit="1", better="lower", target=0, samples=schedules),
        Result(measure="planted_bugs_caught", value=len(caught), unit="1", better="higher", target=len(BUGS)),
        Result(measure="planted_bugs", value=len(BUGS), unit="1", better="higher"),
    ]


def main() -> None:
    options = arguments("simulate", "Schedules of faults, and planted bugs.").parse_args()
    report("simulate", measure(QUICK_SCHEDULES if options.quick else SCHEDULES), options.json)


if __name__ == "__main__":
    main()
