"""The pages in a real browser, with and without JavaScript."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import pytest

from orrery.app import Orrery

pytestmark = [pytest.mark.browser, pytest.mark.usefixtures("year")]
ARGS = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--disable-background-networking"]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """A browser."""
    binary = shutil.which("chromium")
    if binary is None:
        pytest.skip("not run: no chromium (apt-get install chromium)")
    try:
        from playwright.sync_api import sync_playwright
    except ModuleNotFoundError:
        pytest.skip("not run: no playwright")
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=binary, args=ARGS)
        yield browser
        browser.close()


@pytest.mark.parametrize("scripts", [True, False], ids=["with JavaScript", "without JavaScript"])
def test_somebody_reads_the_timeline_and_approves(chromium: Any, address: str, orrery: Orrery, scripts: bool) -> None:
    context = chromium.new_context(viewport={"width": 1280, "height": 900}, java_script_enabled=scripts)
    page = context.new_page()
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("requestfailed", lambda request: complaints.append(request.url))
    page.goto(address)
    page.get_by_role("link", name="flight-delay", exact=True).click()
    picture = page.locator("svg.lanes")
    assert picture.is_visible() and picture.bounding_box()["width"] > 1000
    assert page.locator(".bar.champion").first.bounding_box()["width"] > 50
    assert not page.locator(".plot table").first.is_visible()
    page.get_by_text("As a table").first.click()
    assert page.locator(".plot table").first.is_visible()
    page.locator("svg.lanes a").last.click()
    assert page.get_by_role("heading", name="Version 5").is_visible()
    page.get_by_role("button", name="Approve").click()
    assert "done" not in page.url, "the browser itself asks for the reason"
    page.get_by_label("Your name").first.fill("mara")
    page.get_by_label("Why").first.fill("Holds in every segment.")
    page.get_by_role("button", name="Approve").click()
    assert page.get_by_role("status").inner_text() == "Approved."
    (event,) = list(orrery.timeline.read("flight-delay", kinds=("approved",), version=5))
    assert (event.actor, event.why) == ("mara", "Holds in every segment.")
    assert complaints == []
    context.close()


def test_no_page_is_wider_than_a_telephone(chromium: Any, address: str) -> None:
    context = chromium.new_context(viewport={"width": 390, "height": 800})
    page = context.new_page()
    for path in ("/", "/flight-delay", "/flight-delay/versions/3", "/flight-delay/orders", "/data/flights", "/issues"):
        page.goto(address + path)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, path
    context.close()


def test_text_can_be_read_in_the_light_and_in_the_dark(chromium: Any, address: str) -> None:
    """The contrast of every text is at least that of WCAG AA, 4.5 to 1."""
    for scheme in ("light", "dark"):
        context = chromium.new_context(color_scheme=scheme)
        page = context.new_page()
        for path in ("/", "/flight-delay", "/flight-delay/versions/3", "/flight-delay/versions/5"):
            page.goto(address + path)
            assert page.evaluate(FAINT) == [], (scheme, path)
        context.close()


FAINT = """() => {
  const linear = (v) => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4;
  const light = (c) => { const [r, g, b] = c.map((v) => linear(v / 255));
    return .2126 * r + .7152 * g + .0722 * b; };
  const parse = (text) => text.match(/[\\d.]+/g).map(Number);
  const ground = (e) => { for (; e; e = e.parentElement) { const c = parse(getComputedStyle(e).backgroundColor);
    if (c.length === 3 || c[3] === 1) return c.slice(0, 3); } return [255, 255, 255]; };
  const found = new Set();
  for (const e of document.querySelectorAll("main *, header *")) {
    if (e.closest("svg") || ![...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim())) continue;
    const a = light(parse(getComputedStyle(e).color).slice(0, 3)), b = light(ground(e));
    const ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
    if (ratio < 4.5) found.add(`${e.tagName}.${e.className} ${ratio.toFixed(2)}`);
  }
  return [...found];
}"""
