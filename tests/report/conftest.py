"""A saved page in a real browser, without network."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("there is no Chromium")
    with playwright.sync_playwright() as driver:
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-quic"]
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser
        browser.close()


@contextmanager
def opened_in(browser: Any, file: Path, drawn: str) -> Iterator[tuple[Any, list[str]]]:
    """The page, once what ``drawn`` selects is there, and a list of what goes wrong on it."""
    wrong: list[str] = []
    context = browser.new_context(viewport={"width": 1200, "height": 900}, offline=True)
    page = context.new_page()

    def requested(request: Any) -> None:
        if not request.url.startswith(("file:", "data:", "blob:")):
            wrong.append(request.url)

    page.on("request", requested)
    page.on("console", lambda message: wrong.append(message.text))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.goto(file.as_uri())
    page.wait_for_selector(drawn)
    yield page, wrong
    context.close()


@pytest.fixture
def page(opened: tuple[Any, list[str]]) -> Iterator[Any]:
    """The page as it is after the tests before; whatever goes wrong on it fails the test.

    A file of such tests has a fixture ``opened`` of its own, for all of them.
    """
    page, wrong = opened
    yield page
    page.wait_for_timeout(50)
    assert not wrong


def until(page: Any, expression: str) -> None:
    """Waits until it is true. Playwright's own way is a script that the page does not let run."""
    for _ in range(200):
        if page.evaluate(expression):
            return
        page.wait_for_timeout(25)
    pytest.fail(f"never true: {expression}")


def widths(page: Any) -> Iterator[tuple[int, int]]:
    """A narrow and a wide window, and how wide the page is in each."""
    for window in (390, 1600):
        page.set_viewport_size({"width": window, "height": 800})
        page.wait_for_timeout(300)
        yield window, page.evaluate("document.documentElement.scrollWidth")
