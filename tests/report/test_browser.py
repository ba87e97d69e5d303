"""The page in a real browser, without network."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from tests.report.conftest import opened_in, until, widths
from tests.report.studies import HOSTILE, study

from senet.report.gates.page import gate_page

pytest.importorskip("plotly", reason="plotly is not installed")


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("page") / "report.html"
    found = study(stages=(1, 2), images=5)
    gate_page(found, shown=[0, 1, 2], pictures=lambda n: Image.new("RGB", (8, 8), (n, n, n))).save(path)
    return path


@pytest.fixture(scope="module")
def opened(browser: Any, file: Path) -> Iterator[tuple[Any, list[str]]]:
    with opened_in(browser, file, drawn="#block .legend") as found:
        yield found


def _line(page: Any, trace: int) -> list[float]:
    """What the block's figure shows now."""
    values: list[float] = page.evaluate(f"Array.from(document.getElementById('block').data[{trace}].y)")
    return values


def _hidden(page: Any) -> list[int]:
    """The traces that the legend hides."""
    found: list[int] = page.evaluate(
        "document.getElementById('block')._fullData.filter(t => t.visible == 'legendonly').map(t => t.index)"
    )
    return found


def _click_legend(page: Any, number: int, hidden: int) -> None:
    """Clicks on a name and waits until so many traces are hidden; two fast clicks would be a double click."""
    page.wait_for_timeout(400)
    page.locator("#block .legendtoggle").nth(number).click()
    count = "document.getElementById('block')._fullData.filter(t => t.visible == 'legendonly').length"
    until(page, f"{count} == {hidden}")


def _choose(page: Any, number: int) -> None:
    page.locator("#block .updatemenu-header").first.click()
    page.locator("#block .updatemenu-dropdown-button").nth(number).click()


def test_it_opens_with_all_its_figures(page: Any) -> None:
    assert page.title() == "The gates of se_resnet20"
    for name in ("specificity", "depth", "block"):
        assert page.locator(f"#{name} .main-svg").count() > 0
    assert page.locator("#specificity .heatmaplayer image").count() == 3
    assert page.locator("#depth .scatterlayer .trace").count() == 14


def test_no_button_sends_the_data_anywhere(page: Any) -> None:
    titles = [each.get_attribute("data-title") for each in page.locator("#block .modebar-btn").all()]
    # plotly 6 writes png.
    assert [title.lower() for title in titles] == ["download plot as a png", "zoom", "pan", "reset axes"]


def test_a_class_is_called_as_it_is_named(page: Any) -> None:
    names = page.locator("#block .legendtext").all_text_contents()
    assert names[:2] == ["goldfish", "pug"]
    assert names[2].rstrip("…") == " ".join(HOSTILE.split())[:39]


def test_a_script_that_comes_in_all_the_same_does_not_run(browser: Any, file: Path) -> None:
    page = browser.new_page()
    page.goto(file.as_uri())
    blocked = page.evaluate(
        """() => new Promise(done => {
            document.addEventListener('securitypolicyviolation', event => done(event.violatedDirective));
            const script = document.createElement('script');
            script.textContent = 'document.title = 1';
            document.body.append(script);
        })"""
    )
    assert blocked.startswith("script-src")
    assert page.title() == "The gates of se_resnet20"
    page.close()


def test_a_click_on_its_name_hides_a_class_in_both_panels_and_another_shows_it(page: Any) -> None:
    before = page.locator("#block .scatterlayer .trace").count()
    _click_legend(page, 0, hidden=3)
    assert _hidden(page) == [0, 1, 2]
    assert page.locator("#block .scatterlayer .trace").count() == before - 3
    _click_legend(page, 0, hidden=0)
    assert page.locator("#block .scatterlayer .trace").count() == before


def test_the_list_changes_the_block_and_leaves_hidden_what_the_legend_hides(page: Any) -> None:
    blocks = study(stages=(1, 2), images=5).blocks
    assert _line(page, 0) == pytest.approx(blocks["layer1.0.se"].class_mean[0].tolist(), abs=1e-4)
    _click_legend(page, 1, hidden=3)
    _choose(page, 2)
    until(page, "document.getElementById('block').data[0].y.length == 32")
    assert _line(page, 0) == pytest.approx(blocks["layer2.1.se"].class_mean[0].tolist(), abs=1e-4)
    assert "layer2.1" in page.locator("#block .updatemenu-header .updatemenu-item-text").first.text_content()
    assert _hidden(page) == [3, 4, 5]
    _click_legend(page, 1, hidden=0)
    _choose(page, 0)
    until(page, "document.getElementById('block').data[0].y.length == 16")


def test_the_axis_fits_the_gates_when_asked_to(page: Any) -> None:
    span = "document.getElementById('block')._fullLayout.yaxis.range.reduce((low, high) => high - low)"
    assert page.evaluate(span) == pytest.approx(1.04)
    page.locator("#block .updatemenu-button", has_text="to fit").click()
    until(page, f"{span} < 0.9")
    page.locator("#block .updatemenu-button", has_text="0 to 1").click()
    until(page, f"{span} > 1.03")


def test_pointing_at_a_line_shows_its_values(page: Any) -> None:
    page.locator("#block").scroll_into_view_if_needed()
    point = page.evaluate(
        """() => {
            const plot = document.getElementById('block'), box = plot.getBoundingClientRect();
            const {xaxis, yaxis} = plot._fullLayout, {x, y} = plot.data[0];
            return [box.x + xaxis._offset + xaxis.d2p(x[5]), box.y + yaxis._offset + yaxis.d2p(y[5])];
        }"""
    )
    page.mouse.move(point[0] - 3, point[1])
    page.mouse.move(*point)
    page.wait_for_selector("#block .hovertext")
    text = "".join(page.locator("#block .hovertext").all_text_contents())
    assert "channel 5" in text
    assert "5 images" in text
    # The text of a label is dark, as its ground is white.
    assert (
        page.evaluate("getComputedStyle(document.querySelector('#block .hovertext .nums')).fill")
        == "rgb(31, 41, 51)"
    )


def test_images_are_seen_when_their_block_is_unfolded(page: Any) -> None:
    image = page.locator(".strip img").first
    assert not image.is_visible()
    page.locator("summary", has_text="layer1.0").click()
    assert image.is_visible()
    assert page.evaluate("document.querySelector('.strip img').naturalWidth") == 8


def test_nothing_makes_the_page_wider_than_the_window(page: Any) -> None:
    for window, width in widths(page):
        assert width <= window
