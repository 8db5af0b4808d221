"""One browser for all tests of pages, without a network; a page that logs, raises or asks for anything fails."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser, BrowserContext, ConsoleMessage, Error, Page, Request, async_playwright

from pyvfio_user.guest.provision.browser import provide_browser
from pyvfio_user.guest.provision.progress import Progress

Open = Callable[..., Awaitable[Page]]

_OPTIONS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    """The browser."""
    path = provide_browser(Progress()).path
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=path, args=[*_OPTIONS])
        yield browser
        await browser.close()


@pytest_asyncio.fixture(loop_scope="session")
async def open_page(browser: Browser, tmp_path: Path) -> AsyncIterator[Open]:
    """Opens a page from its text, as a file; `dark` and `size` are what the person who looks has."""
    complaints: list[str] = []
    contexts: list[BrowserContext] = []

    async def opened(text: str, *, dark: bool = False, size: tuple[int, int] = (1280, 900)) -> Page:
        file = tmp_path / f"page-{len(contexts)}.html"
        file.write_text(text, encoding="utf-8")
        context = await browser.new_context(
            color_scheme="dark" if dark else "light",
            viewport={"width": size[0], "height": size[1]},
            offline=True,
            reduced_motion="reduce",
        )
        contexts.append(context)
        page = await context.new_page()

        def logged(message: ConsoleMessage) -> None:
            complaints.append(f"{message.type}: {message.text}")

        def raised(error: Error) -> None:
            complaints.append(f"raised: {error}")

        def asked(request: Request) -> None:
            if request.url != file.as_uri():
                complaints.append(f"asked for {request.url}")

        page.on("console", logged)
        page.on("pageerror", raised)
        page.on("request", asked)
        await page.goto(file.as_uri())
        return page

    yield opened
    for context in contexts:
        await context.close()
    assert complaints == []


@pytest.fixture
def shots(request: pytest.FixtureRequest) -> Path:
    """Where pictures of pages are kept, to be looked at."""
    folder = Path(request.config.rootpath) / "out/pages"
    folder.mkdir(parents=True, exist_ok=True)
    return folder
