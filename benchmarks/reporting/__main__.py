"""The report of a run, and the difference of two:

python -m benchmarks.reporting RUN [--baseline RUN] [--out FILE] [--open]
python -m benchmarks.reporting compare BEFORE AFTER [--threshold 0.1]
"""

from __future__ import annotations

import argparse
import sys
import webbrowser
from collections.abc import Sequence
from pathlib import Path

from benchmarks.reporting import terminal
from benchmarks.reporting.comparison import THRESHOLD, compare
from benchmarks.reporting.folder import Run, read
from benchmarks.reporting.page import Page
from flotilla.core.errors import FlotillaError

REGRESSION, INVALID, WRONG = 1, 2, 3
"""Exit codes: something got worse; a run can't be believed; there is nothing to read."""


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        return _compare(words[1:]) if words[:1] == ["compare"] else _report(words)
    except FlotillaError as error:
        terminal.fail(error)
        return WRONG


def _report(words: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reporting", description="The page of a run.")
    parser.add_argument("run", metavar="RUN", help="its folder, or its name")
    parser.add_argument("--baseline", metavar="RUN", help="another run to hold it against")
    parser.add_argument("--threshold", type=float, default=THRESHOLD, help="a smaller change is none (0.1)")
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="report.html in the run's folder, if not given"
    )
    parser.add_argument("--open", action="store_true", help="open it in a browser")
    options = parser.parse_args(words)
    run = read(options.run)
    baseline = read(options.baseline) if options.baseline else None
    path = write(run, baseline, options.out or run.folder / "report.html", options.threshold)
    terminal.summary(run, path)
    if options.open:
        webbrowser.open(path.absolute().as_uri())
    return 0 if run.about.valid else INVALID


def write(run: Run, baseline: Run | None, path: Path, threshold: float = THRESHOLD) -> Path:
    """Makes the page."""
    differences = compare(baseline, run, threshold=threshold) if baseline else []
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(Page(run, baseline, differences).html())
    return path


def _compare(words: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reporting compare")
    parser.add_argument("before", metavar="BEFORE")
    parser.add_argument("after", metavar="AFTER")
    parser.add_argument("--threshold", type=float, default=THRESHOLD, help="a smaller change is none (0.1)")
    options = parser.parse_args(words)
    before, after = read(options.before), read(options.after)
    found = compare(before, after, threshold=options.threshold)
    terminal.differences(before, after, found)
    if not (before.about.valid and after.about.valid):
        return INVALID
    return REGRESSION if any(one.word == "worse" for one in found) else 0


if __name__ == "__main__":
    sys.exit(main())
