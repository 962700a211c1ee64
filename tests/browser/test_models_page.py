"""The page of the models in a real browser, before a real fleet: a swap is watched, and rolled back by its button."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Page, expect

from tests.browser.page_probe import DESKTOP, PHONE, browser_page, open_page, screenshot, wait_connected
from tests.fleet import TestFleet

pytestmark = pytest.mark.timeout(240)
MODEL = "clerk"
RIGHT = "The Gold Card costs 95 dollars a year."
SAYS = {"mode": "replies", "replies": [RIGHT], "first_token_s": 0.02, "token_s": 0.002}
SLOWER = SAYS | {"first_token_s": 0.2}
GATE = {
    "name": "cards",
    "cases": [{"id": "gold", "question": "What does the Gold Card cost?", "expected": ["$95"]}],
    "score_min": 0.5,
}
STAGE_MS = 60_000
WIDE = (1280, 1180)


@pytest.fixture(scope="module")
def clerk(fleet: TestFleet) -> Iterator[TestFleet]:
    """A model of two versions, of which the second one is slower; it has no replicas afterwards."""
    for name, settings in (("1", SAYS), ("2", SLOWER)):
        call(fleet, "versions", {"name": name, "engine": "scripted", "settings": settings, "licence": "mit"})
    call(fleet, "serve", {"version": "1", "least": 1, "most": 1})
    yield fleet
    call(fleet, "serve", {"least": 0})


def call(fleet: TestFleet, path: str, body: dict[str, Any]) -> dict[str, Any]:
    answer = fleet.http.post(f"/v1/models/{MODEL}/{path}", json=body)
    answer.raise_for_status()
    return answer.json()


def begin(fleet: TestFleet, *percents: float, **order: Any) -> None:
    """A swap that waits behind each step."""
    steps = [{"canary": {"percent": percent}, "hold_s": 0.0, "hold_max_s": 60.0} for percent in percents]
    budgets = {"first_token_ratio_max": 1000.0}
    order = {"gate": GATE, "steps": steps, "automatic": False, "budgets": budgets} | order
    call(fleet, "swaps", {"to": "2", "order": order})


@asynccontextmanager
async def models_page(fleet: TestFleet, **how: Any) -> AsyncGenerator[Page]:
    async with browser_page(**how) as page:
        await open_page(page, f"{fleet.url}/models?model={MODEL}")
        yield page


async def ended(page: Page, fleet: TestFleet) -> None:
    """Once the swap is over; it is rolled back if need be."""
    if fleet.http.get(f"/v1/models/{MODEL}").json()["swap"] is not None:
        call(fleet, "swap/rollback", {"reason": "the test is over"})
    await expect(page.get_by_test_id("stops")).to_have_count(0, timeout=STAGE_MS)


async def talk(fleet: TestFleet, replies: int) -> None:
    """So many conversations with the model, as any client of OpenAI's would have them."""

    def ask(n: int) -> int:
        body = {"model": MODEL, "messages": [{"role": "user", "content": f"What does card {n} cost?"}]}
        return fleet.http.post("/openai/v1/chat/completions", json=body).status_code

    for n in range(replies):
        assert await asyncio.to_thread(ask, n) == 200


async def test_a_swap_is_seen_and_rolled_back_with_the_button(clerk: TestFleet, tmp_path: Path) -> None:
    picture = Path(os.environ.get("SCREENSHOTS", tmp_path)) / "models.png"
    async with models_page(clerk, size=WIDE) as page:
        headline, stops = page.get_by_test_id("headline"), page.get_by_test_id("stops")
        await expect(headline).to_have_text("clerk@1 answers everybody.")
        begin(clerk, 5, 25, 50)
        await expect(stops).to_be_visible()
        words = ["Load", "Warm up", "Evaluate", "5 %", "25 %", "50 %", "Everybody", "Retire the old"]
        assert await stops.locator("li").all_inner_texts() == words
        await expect(headline).to_have_text("clerk@2 answers 5 % of the conversations.", timeout=STAGE_MS)
        await expect(page.get_by_test_id("gate")).to_contain_text(
            "Passed the gate: clerk@2 1.00, clerk@1 1.00"
        )
        await page.get_by_role("button", name="Go on to 25 %").click(timeout=STAGE_MS)
        await expect(headline).to_have_text("clerk@2 answers 25 % of the conversations.")
        await expect(stops.locator('[aria-current="step"]')).to_have_text("25 %")
        await expect(page.get_by_role("button", name="Go on to 50 %")).to_be_visible(timeout=STAGE_MS)
        await talk(clerk, 30)
        worse = page.get_by_test_id("figures").get_by_role("row", name="First token, p95").locator("td")
        await expect(worse.nth(1)).to_have_attribute("data-worse", "", timeout=STAGE_MS)
        await expect(worse.nth(0)).not_to_have_attribute("data-worse", "")
        await expect(page.get_by_test_id("replicas")).to_contain_text("clerk@2.")
        await page.mouse.move(0, 0)
        await screenshot(page, picture)
        await page.get_by_test_id("rollback").click()
        await expect(headline).to_have_text("clerk@1 answers everybody.", timeout=STAGE_MS)
        await expect(page.get_by_test_id("reason")).to_contain_text("was rolled back")
        await expect(page.get_by_test_id("past")).to_contain_text("clerk@1 → clerk@2")
        seen = clerk.http.get(f"/v1/models/{MODEL}").json()
        assert (seen["serving"]["stable"], seen["swaps"][0]["end"]) == ("clerk@1", "rolled_back")
        await ended(page, clerk)
    assert picture.stat().st_size > 10_000


async def test_it_is_promoted_and_the_old_version_retired_by_hand(clerk: TestFleet) -> None:
    async with models_page(clerk) as page:
        begin(clerk, 50)
        await page.get_by_role("button", name="Promote clerk@2").click(timeout=STAGE_MS)
        headline = page.get_by_test_id("headline")
        await expect(headline).to_have_text("clerk@2 answers everybody.", timeout=STAGE_MS)
        await expect(page.get_by_test_id("rollback")).to_be_visible()
        await page.get_by_role("button", name="Go on: retire clerk@1 now").click()
        await expect(page.get_by_test_id("swap")).to_be_visible(timeout=STAGE_MS)
        await page.get_by_test_id("to").select_option("clerk@1")
        await page.get_by_test_id("swap").click()
        await expect(page.get_by_test_id("said")).to_contain_text("Without a gate set")
        call(clerk, "swap/pause", {})
        await expect(page.get_by_role("button", name="Go on")).to_be_visible()
        await page.get_by_test_id("resume").click()
        await page.get_by_role("button", name="Promote now").click(timeout=STAGE_MS)
        await expect(headline).to_have_text("clerk@1 answers everybody.", timeout=STAGE_MS)
        await page.get_by_test_id("resume").click(timeout=STAGE_MS)
        await expect(page.get_by_test_id("swap")).to_be_visible(timeout=STAGE_MS)


async def test_nothing_is_loaded_from_elsewhere_and_nothing_is_complained_of(clerk: TestFleet) -> None:
    async with browser_page(size=DESKTOP) as page:
        asked: list[str] = []
        complaints: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda line: complaints.append(line.text) if line.type == "error" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        await open_page(page, clerk.url)
        await page.get_by_test_id("to-models").click()
        await wait_connected(page)
        await expect(page.get_by_test_id("names")).to_contain_text(MODEL)
        await page.get_by_test_id(f"model-{MODEL}").click()
        await expect(page.get_by_test_id("headline")).to_contain_text(MODEL)
        await page.get_by_test_id("to-chat").click()
        await wait_connected(page)
        assert all(url.startswith((clerk.url, f"ws://127.0.0.1:{clerk.port}", "data:")) for url in asked)
        assert complaints == []


@pytest.mark.parametrize("dark", [False, True])
async def test_a_phone_needs_no_sideways_scrolling(clerk: TestFleet, dark: bool) -> None:
    async with models_page(clerk, size=PHONE, dark=dark) as page:
        begin(clerk, 1, 5, 25, 50)
        await expect(page.get_by_role("button", name="Go on to 5 %")).to_be_visible(timeout=STAGE_MS)
        assert await page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        assert await page.evaluate("document.querySelector('.scroller').scrollWidth <= window.innerWidth")
        await ended(page, clerk)


async def test_a_wrong_key_asks_for_another_one(clerk: TestFleet) -> None:
    async with models_page(clerk) as page:
        await page.evaluate("sessionStorage.setItem('flotilla.key', 'not a key of anybody')")
        await expect(page.get_by_test_id("key-form")).to_be_visible(timeout=STAGE_MS)
        await expect(page.get_by_test_id("status")).to_have_attribute("data-state", "locked")
        await expect(page.get_by_test_id("model")).to_be_hidden()
        await page.get_by_test_id("key").fill("dev")
        await page.keyboard.press("Enter")
        await wait_connected(page)
        await expect(page.get_by_test_id("headline")).to_be_visible()


async def test_a_fleet_that_is_gone_is_said_so_and_comes_back(clerk: TestFleet) -> None:
    async with models_page(clerk) as page:
        await expect(page.get_by_test_id("headline")).to_have_text("clerk@1 answers everybody.")
        await page.context.set_offline(True)
        await expect(page.get_by_test_id("notice")).to_contain_text(
            "The fleet doesn't answer. What you see is from"
        )
        await expect(page.get_by_test_id("headline")).to_be_visible()
        await page.context.set_offline(False)
        await wait_connected(page)
        await expect(page.get_by_test_id("notice")).to_be_empty()


async def test_a_fleet_without_models_says_how_to_add_one(clerk: TestFleet) -> None:
    async with browser_page() as page:
        await page.route("**/v1/models", lambda route: route.fulfill(json={"models": [], "more": False}))
        await open_page(page, f"{clerk.url}/models")
        await expect(page.get_by_test_id("headline")).to_have_text("There is no model yet.")
        await expect(page.get_by_test_id("model")).to_contain_text("flotilla models add")
