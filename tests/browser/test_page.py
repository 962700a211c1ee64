"""The page in a real browser, before a real fleet."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.async_api import expect

from tests.browser.page_probe import (
    DESKTOP,
    PHONE,
    ask,
    browser_page,
    messages,
    open_citation,
    open_page,
    screenshot,
    wait_completed,
    wait_connected,
    wait_status,
)
from tests.fleet import BANK, QUESTION, TestFleet


async def test_a_person_asks_and_sees_a_cited_answer(fleet: TestFleet, tmp_path: Path) -> None:
    async with browser_page(size=DESKTOP) as page:
        await open_page(page, f"{fleet.url}/?agent=bank")
        await ask(page, QUESTION)
        reply = await wait_completed(page)
        assert "95 dollars" in reply["text"] and len(reply["citations"]) == 1
        quote = (await open_citation(page)).strip(" “”\n")
        assert any(quote in document["text"] for document in BANK)
        assert {"queued", "retrieval", "prompt", "generation", "overhead"} <= reply["timing"].keys()
        await screenshot(page, tmp_path / "page.png")
    assert (tmp_path / "page.png").stat().st_size > 10_000


async def test_the_page_loads_nothing_from_elsewhere(fleet: TestFleet) -> None:
    async with browser_page() as page:
        asked: list[str] = []
        complaints: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda line: complaints.append(line.text) if line.type == "error" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        await open_page(page, fleet.url)
        await ask(page, "hello")
        await wait_completed(page)
        assert all(url.startswith((fleet.url, f"ws://127.0.0.1:{fleet.port}", "data:")) for url in asked)
        assert complaints == []


@pytest.mark.parametrize("dark", [False, True])
async def test_it_works_on_a_phone(fleet: TestFleet, dark: bool) -> None:
    async with browser_page(size=PHONE, dark=dark) as page:
        await open_page(page, f"{fleet.url}/?agent=bank")
        await ask(page, QUESTION)
        await wait_completed(page)
        assert await page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


async def test_stop_keeps_what_was_said(fleet: TestFleet) -> None:
    async with browser_page() as page:
        await open_page(page, f"{fleet.url}/?agent=bank")
        await ask(page, QUESTION)
        await wait_status(page, "streaming")
        await page.get_by_test_id("stop").click()
        reply = await wait_status(page, "interrupted")
        assert (await reply.get_by_test_id("reply-text").inner_text()).strip()


async def test_it_reconnects_by_itself_and_goes_on(fleet: TestFleet) -> None:
    async with browser_page() as page:
        await open_page(page, f"{fleet.url}/?agent=bank")
        await ask(page, QUESTION)
        await wait_status(page, "streaming")
        await page.reload()
        await wait_connected(page)
        reply = await wait_completed(page)
        assert "95 dollars" in reply["text"]
        assert await messages(page) == [QUESTION]


async def test_a_gateway_that_dies_is_not_the_persons_problem(fleet: TestFleet) -> None:
    async with browser_page() as page:
        await open_page(page, f"{fleet.url}/?agent=bank")
        fleet.process("ray::ServeReplica:flotilla:gateway").kill()
        await expect(page.get_by_test_id("status")).not_to_have_attribute("data-state", "connected")
        await ask(page, QUESTION)
        reply = await wait_completed(page)
        assert "95 dollars" in reply["text"]
        assert await messages(page) == [QUESTION]
