"""Two runs held against each other: a regression is called one, and noise is not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.reporting.__main__ import INVALID, REGRESSION, main
from benchmarks.reporting.comparison import Difference, compare
from benchmarks.reporting.folder import read
from tests.reporting import synthetic_runs


def pair(folder: Path, **after: object) -> tuple[Path, Path]:
    common = {"seconds": 60.0, "per_s": 100.0, "storm_at": None}
    one = synthetic_runs.write(folder / "before", **common | {"seed": 1})  # type: ignore[arg-type]
    return one, synthetic_runs.write(folder / "after", **common | {"seed": 2} | after)  # type: ignore[arg-type]


def by_name(found: list[Difference]) -> dict[str, Difference]:
    return {one.measure: one for one in found}


@pytest.mark.parametrize("seed", range(2, 6))
def test_two_runs_of_the_same_fleet_do_not_differ(tmp_path: Path, seed: int) -> None:
    before, after = pair(tmp_path, seed=seed)
    words = {one.word for one in compare(read(before), read(after))}
    assert words == {"same", "unsure"}
    assert main(["compare", str(before), str(after)]) == 0


def test_a_slower_fleet_is_found_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before, after = pair(tmp_path, slower=1.4)
    found = by_name(compare(read(before), read(after)))
    for quantile in ("p50", "p95", "p99"):
        one = found[f"first token {quantile}"]
        assert one.word == "worse" and one.low <= one.change <= one.high
    assert 0.3 < found["first token p50"].change < 0.5
    assert found["end to end p50"].word == "same"  # its second of generation is as it was
    assert found["memory of the fleet"].word == "same"
    assert main(["compare", str(before), str(after)]) == REGRESSION
    assert "worse" in capsys.readouterr().out
    assert main(["compare", str(before), str(after), "--threshold", "1"]) == 0


def test_a_faster_one_is_better_and_no_regression(tmp_path: Path) -> None:
    before, after = pair(tmp_path, slower=0.6)
    assert by_name(compare(read(before), read(after)))["first token p99"].word == "better"
    assert main(["compare", str(before), str(after)]) == 0


def test_turns_that_fail_where_none_did_are_a_regression(tmp_path: Path) -> None:
    before, after = pair(tmp_path, shed=0.03)
    one = by_name(compare(read(before), read(after)))["shed turns"]
    assert one.before == 0 and one.change == pytest.approx(0.03, abs=0.01) and one.word == "worse"


def test_a_slow_stretch_is_not_taken_for_the_rule(tmp_path: Path) -> None:
    """A few seconds of one run were slow. Drawn turn by turn its p99 would look certain."""
    before, after = pair(tmp_path, storm_at=50.0)
    one = by_name(compare(read(before), read(after)))["first token p99"]
    assert one.high - one.low > 1.0


def test_what_is_too_rare_to_say_is_not_said(tmp_path: Path) -> None:
    before, after = pair(tmp_path, slower=3.0)
    turns = len(read(after).turns["intended_s"])
    assert turns * 0.001 < 10
    assert by_name(compare(read(before), read(after)))["first token p99.9"].word == "unsure"


def test_an_invalid_run_proves_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before, after = pair(tmp_path, slower=2.0, invalid=("the generator lagged",))
    assert main(["compare", str(before), str(after)]) == INVALID
    assert "the generator lagged" in capsys.readouterr().out


def test_the_same_seed_the_same_ranges(tmp_path: Path) -> None:
    before, after = (read(folder) for folder in pair(tmp_path, slower=1.2))
    assert compare(before, after, seed=5) == compare(before, after, seed=5)


def test_percentiles_are_right_to_a_hundredth(tmp_path: Path) -> None:
    before, after = (read(folder) for folder in pair(tmp_path))
    first_ms = (after.turns["first_s"] - after.turns["intended_s"]) * 1000
    one = by_name(compare(before, after))["first token p95"]
    assert one.after == pytest.approx(np.nanpercentile(first_ms, 95), rel=0.011)
