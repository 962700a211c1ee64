"""What a person does on the page, as functions: open it, ask, wait, look.

They lean on ``data-testid`` only, so that the page may change its looks without breaking a test.
Use them with Playwright's async API; times are in seconds.
"""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypedDict

from playwright.async_api import Locator, Page, async_playwright, expect

CHROMIUM = "/usr/bin/chromium"
QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-sync",
    "--disable-background-networking",
    "--disable-component-update",
]

PHONE = (360, 740)
DESKTOP = (1280, 800)


class Reply(TypedDict):
    """A finished reply as the page shows it; timing in milliseconds by hop."""

    text: str
    citations: list[str]
    sources: list[str]
    timing: dict[str, float]


@asynccontextmanager
async def browser_page(*, size: tuple[int, int] = DESKTOP, dark: bool = False) -> AsyncGenerator[Page]:
    """A page in a fresh headless browser, closed at the end."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        width, height = size
        page = await browser.new_page(
            viewport={"width": width, "height": height},
            color_scheme="dark" if dark else "light",
        )
        try:
            yield page
        finally:
            await browser.close()


async def open_page(page: Page, url: str, *, within_s: float = 15) -> None:
    """Loads the page and waits until it is connected."""
    await page.goto(url)
    await wait_connected(page, within_s=within_s)


async def wait_connected(page: Page, *, within_s: float = 15) -> None:
    status = page.get_by_test_id("status")
    await expect(status).to_have_attribute("data-state", "connected", timeout=within_s * 1000)


async def ask(page: Page, text: str) -> Locator:
    """Types and sends a message; returns its turn, which is there once the message is accepted."""
    already = await page.get_by_test_id("turn").count()
    await page.get_by_test_id("input").fill(text)
    await page.get_by_test_id("send").click()
    return page.get_by_test_id("turn").nth(already)


async def wait_status(page: Page, status: str, *, within_s: float = 60) -> Locator:
    """Waits until the last reply is ``waiting``, ``streaming``, ``completed``, ``failed`` or
    ``interrupted``, and returns it."""
    reply = page.get_by_test_id("reply").last
    await expect(reply).to_have_attribute("data-status", status, timeout=within_s * 1000)
    return reply


async def wait_completed(page: Page, *, within_s: float = 60) -> Reply:
    """Waits for the last reply to be completed and reads it."""
    reply = await wait_status(page, "completed", within_s=within_s)
    return Reply(
        text=await reply.get_by_test_id("reply-text").evaluate("node => node.textContent"),
        citations=await reply.get_by_test_id("citation").evaluate_all(
            "nodes => nodes.map(node => node.getAttribute('aria-label'))"
        ),
        sources=await reply.get_by_test_id("source").evaluate_all(
            "nodes => nodes.map(node => node.lastChild.textContent)"
        ),
        timing=await _timing(reply),
    )


async def _timing(reply: Locator) -> dict[str, float]:
    return await reply.locator("dd[data-ms]").evaluate_all(
        """nodes => Object.fromEntries(nodes.map(node =>
            [node.dataset.testid.replace("timing-", ""), Number(node.dataset.ms)]))"""
    )


async def open_citation(page: Page, number: int = 0) -> str:
    """Presses a citation of the last reply (from 0) and returns the quotes on its card."""
    await page.get_by_test_id("reply").last.get_by_test_id("citation").nth(number).click()
    card = page.get_by_test_id("card")
    await expect(card).to_be_visible()
    return await card.get_by_test_id("card-quotes").inner_text()


async def messages(page: Page) -> list[str]:
    """Every message that the person wrote, in the order shown."""
    return await page.get_by_test_id("message").locator("p:first-child").all_inner_texts()


async def screenshot(page: Page, path: Path | str) -> None:
    await page.screenshot(path=path, animations="disabled")
