"""The page in a real browser, before a real fleet."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from playwright.async_api import Route, WebSocketRoute, expect

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


async def test_a_person_takes_over_and_both_are_seen(fleet: TestFleet) -> None:
    async with browser_page() as page:
        await open_page(page, f"{fleet.url}/?agent=bank")
        await ask(page, QUESTION)
        await wait_status(page, "streaming")
        session = fleet.http.get("/v1/sessions?limit=1").json()["sessions"][0]["id"]
        for call, body in (
            ("handoff", {"action": "accept", "person": "Ann"}),
            ("notes", {"id": "n-1", "text": "Sounds angry.", "person": "Ann"}),
            ("messages", {"id": "p-1", "text": "Ann here.", "as": "Ann"}),
        ):
            fleet.http.post(f"/v1/sessions/{session}/{call}", json=body).raise_for_status()
        said = await wait_status(page, "person")
        assert (await said.get_by_test_id("reply-text").inner_text()).strip() == "Ann here."
        await expect(said.get_by_test_id("by")).to_have_text("Ann")
        await ask(page, "Thank you!")
        fleet.http.post(f"/v1/sessions/{session}/handoff", json={"action": "return", "person": "Ann"})
        transcript = page.get_by_test_id("transcript")
        await expect(transcript).to_contain_text("The agent is answering again.")
        assert await messages(page) == [QUESTION, "Thank you!"]
        for words, count in (("Ann has joined.", 1), ("Stopped", 1), ("Sounds angry.", 0)):
            await expect(transcript.get_by_text(words)).to_have_count(count)
        await page.reload()
        await expect(transcript).to_contain_text("The agent is answering again.")
        assert await messages(page) == [QUESTION, "Thank you!"]


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


async def test_a_token_is_renewed_and_a_socket_that_ends_with_the_old_one_comes_back(
    fleet: TestFleet,
) -> None:
    tokens: list[str] = []
    sockets: list[WebSocketRoute] = []

    async def almost_over(route: Route) -> None:
        answer = await route.fetch()
        soon = datetime.now(UTC) + timedelta(seconds=8)
        await route.fulfill(response=answer, json=await answer.json() | {"expires_at": soon.isoformat()})

    def opened(socket: WebSocketRoute) -> None:
        socket.connect_to_server()
        sockets.append(socket)

    async with browser_page() as page:
        await page.route("**/v1/web/visits", almost_over)
        await page.route_web_socket("**/ws**", opened)
        page.on("request", lambda request: tokens.append(request.url) if "/token" in request.url else None)
        async with page.expect_response("**/token") as renewal:
            await open_page(page, f"{fleet.url}/?agent=bank")
        assert (await renewal.value).status == 201
        await sockets[0].close(code=4401, reason="No valid key or token")
        await expect(page.get_by_test_id("status")).to_have_attribute("data-state", "connected")
        await ask(page, QUESTION)
        assert "95 dollars" in (await wait_completed(page))["text"]
        assert len(sockets) == 2 and len(tokens) == 1


async def test_a_gateway_that_dies_is_not_the_persons_problem(fleet: TestFleet) -> None:
    async with browser_page() as page:
        await open_page(page, f"{fleet.url}/?agent=bank")
        fleet.process("ray::ServeReplica:flotilla:gateway").kill()
        await expect(page.get_by_test_id("status")).not_to_have_attribute("data-state", "connected")
        await ask(page, QUESTION)
        reply = await wait_completed(page)
        assert "95 dollars" in reply["text"]
        assert await messages(page) == [QUESTION]
