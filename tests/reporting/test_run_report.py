"""The page of a run, in a real browser: it needs nothing but itself, and says first what matters."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.reporting.__main__ import INVALID, WRONG, main
from benchmarks.reporting.axes import Axis, logarithmic, short
from benchmarks.reporting.folder import TURN_COLUMNS, read
from benchmarks.reporting.hops import end_bands, first_bands
from benchmarks.reporting.latencies import distribution, edges, latencies, over_time, percentiles
from benchmarks.reporting.rates import errors, good, in_flight
from benchmarks.reporting.watched import watched
from flotilla.core.errors import Misconfigured, NotFound
from tests.browser.page_probe import DESKTOP, PHONE, browser_page
from tests.reporting import synthetic_runs

SIZE_MAX = 1_000_000


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    synthetic_runs.write(folder / "before", seed=1, seconds=60, per_s=100, slower=0.7, storm_at=None)
    synthetic_runs.write(folder / "now", seed=2, seconds=60, per_s=100, storm_at=30.0, shed=0.02)
    synthetic_runs.write(
        folder / "lagged", seed=3, seconds=30, per_s=50, invalid=("It lagged: <b>41 ms</b>.",)
    )
    return folder


# -- in a browser


@pytest.mark.parametrize("dark", [False, True])
async def test_the_page_needs_nothing_but_itself(runs: Path, tmp_path: Path, dark: bool) -> None:
    page_file = tmp_path / "report.html"
    assert main([str(runs / "now"), "--baseline", str(runs / "before"), "--out", str(page_file)]) == 0
    assert page_file.stat().st_size < SIZE_MAX
    async with browser_page(size=DESKTOP, dark=dark) as page:
        asked: list[str] = []
        complaints: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda line: complaints.append(line.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        await page.goto(page_file.as_uri())
        first = page.locator("svg.chart").first
        await first.hover()
        assert "p99.9" in await page.locator("#tip").inner_text()
        shown = await page.locator(".cross[visibility=visible]").count()
        assert shown == await page.locator("svg.timed").count() > 5
        button = page.get_by_role("button", name="p99.9", exact=True).first
        await button.click()
        assert await first.locator("path.off").count() == 1
        await button.click()
        assert await first.locator("path.off").count() == 0
        text = await page.locator("main").inner_text()
    assert asked == [page_file.as_uri()] and complaints == []
    assert text.index("1 of 4 targets are missed") < text.index("Latency")
    assert "lean client" in text
    assert "Against before" in text and "worse" in text and "baseline p99" in text
    assert "<script>alert(1)</script>" in text  # a type of error, as words


async def test_an_invalid_run_says_so_first(runs: Path, tmp_path: Path) -> None:
    page_file = tmp_path / "report.html"
    assert main([str(runs / "lagged"), "--out", str(page_file)]) == INVALID
    async with browser_page(size=PHONE) as page:
        await page.goto(page_file.as_uri())
        banner = page.get_by_test_id("validity")
        assert (await banner.inner_text()).splitlines() == [
            "This run is invalid: its figures prove nothing.",
            "It lagged: <b>41 ms</b>.",
        ]
        assert "bad" in (await banner.get_attribute("class") or "")
        above = await page.evaluate(
            "document.querySelector('[data-testid=validity]').getBoundingClientRect().top"
            " < document.querySelector('.tiles').getBoundingClientRect().top"
        )
        assert above
        assert await page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def test_a_run_in_which_nothing_happened_has_a_page_too(runs: Path, tmp_path: Path) -> None:
    folder = synthetic_runs.write(tmp_path / "empty", seconds=20, per_s=1, storm_at=None)
    empty = {name: np.empty(0) for name in TURN_COLUMNS}
    np.savez(folder / "turns.npz", allow_pickle=False, **empty)
    np.savez(folder / "gaps.npz", at_s=np.empty(0), gap_ms=np.empty(0))
    assert main([str(folder), "--baseline", str(runs / "before")]) == 0
    assert "Nothing was seen." in (folder / "report.html").read_text()


# -- its figures


def test_percentiles_over_time_are_those_of_each_bin(runs: Path) -> None:
    run = read(runs / "now")
    first, *_ = latencies(run)
    bounds = edges(run.seconds)
    rows = over_time(first, bounds)
    inside = first.ms[(first.at_s >= bounds[20]) & (first.at_s < bounds[21])]
    assert len(inside) > 50 and np.allclose(rows[:, 20], percentiles(inside))
    assert bool(np.isnan(rows[:, 0]).all())  # nobody talked yet


@pytest.mark.parametrize(("seconds", "width"), [(5, 1), (119, 1), (121, 2), (600, 5), (3600, 50)])
def test_bins_are_round_and_not_too_many(seconds: float, width: float) -> None:
    found = edges(seconds)
    assert found[1] - found[0] == width and found[-1] >= seconds and len(found) <= 121


def test_a_distribution_ends_at_the_highest_value_it_can_vouch_for() -> None:
    ms, at = distribution(np.arange(1, 1001).astype(np.float64))
    assert at[0] == 0 and at[-1] == pytest.approx(99.9) and ms[-1] == pytest.approx(999, abs=0.1)


def test_goodput_leaves_out_what_was_late_shed_or_failed(runs: Path) -> None:
    run = read(runs / "now")
    kept, turns = good(run), run.turns
    assert (turns["outcome"][kept] == 0).all()
    assert not ((turns["first_s"] - turns["intended_s"])[kept] > 0.25).any()
    assert (turns["outcome"] == 1).sum() > 0 < kept.sum() < len(kept)


def test_turns_in_flight_are_rate_times_duration(runs: Path) -> None:
    run = read(runs / "before")
    assert in_flight(run, np.array([30.0]))[0] == pytest.approx(100 * 1.01, rel=0.25)  # Little's law
    assert in_flight(run, np.array([60.0]))[0] == 0


def test_of_errors_that_were_not_all_kept_the_count_is_right(runs: Path) -> None:
    run = read(runs / "now")
    bounds = edges(run.seconds)
    for type, rates in errors(run, bounds).items():
        assert (rates * np.diff(bounds)).sum() == pytest.approx(run.about.errors[type])


def test_the_parts_of_a_turn_add_up_to_what_the_client_saw(runs: Path) -> None:
    run = read(runs / "now")
    first, _, end = latencies(run)
    for bands, latency in ((first_bands(run), first), (end_bands(run), end)):
        middle = bands[0]
        assert middle.name == "p50" and middle.total_ms == pytest.approx(np.median(latency.ms), rel=0.02)
        assert [band.total_ms for band in bands] == sorted(band.total_ms for band in bands)
    slow = first_bands(run)[3]
    assert max(slow.parts, key=lambda part: slow.parts[part]) == "queued"  # the storm's


def test_memory_adds_up_over_all_processes_of_the_fleet(runs: Path) -> None:
    run = read(runs / "now")
    seen = watched(run, edges(run.seconds))
    expected = sum(
        mb * 1e6 / 2**20
        for name, mb in zip(synthetic_runs.PROCESSES, synthetic_runs.PSS_MB, strict=True)
        if "gen" not in name
    )
    assert seen.total_mib()[-2] == pytest.approx(expected, rel=0.03)
    assert [usage.name for usage in seen.usages][-2:] == ["3 others", "generator"]


# -- axes


def test_each_nine_takes_the_same_room() -> None:
    places = Axis(low=0, high=99.99, kind="nines").place(np.array([0.0, 90.0, 99.0, 99.9, 99.99]))
    assert np.allclose(np.diff(places), 0.25)


def test_a_logarithmic_axis_holds_all_values_and_has_labels() -> None:
    axis = logarithmic([np.array([1000.0, np.nan]), np.array([1280.0])], "ms")
    assert axis.low < 1000 and axis.high > 1280 and len(axis.ticks) >= 2
    assert logarithmic([]).ticks  # of nothing


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (0, "0"),
        (0.01234, "0.0123"),
        (1.5, "1.5"),
        (99.99, "99.99"),
        (94.637, "94.6"),
        (123.4, "123"),
        (12345, "12,300"),
        (None, "–"),
    ],
)
def test_numbers_have_three_digits_that_count(value: float | None, said: str) -> None:
    assert short(value) == said


# -- bad input


def test_a_run_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(NotFound, match="nowhere"):
        read("nowhere")
    assert main(["nowhere"]) == WRONG
    assert "(RUN)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("run.json", b'{"name": 3}'),
        ("turns.npz", b"no zip"),
        ("marks.jsonl", b"{}\n"),
        ("resources.json", b"[3]"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, file: str, content: bytes) -> None:
    folder = synthetic_runs.write(tmp_path / "run", seconds=20, per_s=10)
    (folder / file).write_bytes(content)
    with pytest.raises(Misconfigured) as error:
        read(folder)
    assert error.value.field == file and error.value.next


def test_a_column_that_is_missing_or_short_is_named(tmp_path: Path) -> None:
    folder = synthetic_runs.write(tmp_path / "run", seconds=20, per_s=10)
    np.savez(folder / "gaps.npz", at_s=np.zeros(3))
    with pytest.raises(Misconfigured, match="gap_ms"):
        read(folder)
    np.savez(folder / "gaps.npz", at_s=np.zeros(3), gap_ms=np.zeros(4))
    with pytest.raises(Misconfigured, match="one length"):
        read(folder)
