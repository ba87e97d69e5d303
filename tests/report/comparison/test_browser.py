"""The page in a real browser, without network."""

from collections.abc import Iterator
from typing import Any

import pytest
from tests.analysis.comparison.made_up import HOSTILE, comparison, group
from tests.report.conftest import opened_in, until, widths

from senet.analysis.comparison.comparison import Comparison
from senet.report.comparison.page import comparison_page

pytest.importorskip("plotly", reason="plotly is not installed")
pytest.importorskip("scipy", reason="scipy is not installed")


def _comparison() -> Comparison:
    return comparison([group("resnet20"), group("se_resnet20", 0.8, parameters=275_000), group(HOSTILE)])


@pytest.fixture(scope="module")
def opened(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, list[str]]]:
    file = tmp_path_factory.mktemp("page") / "report.html"
    comparison_page(_comparison()).save(file)
    with opened_in(browser, file, drawn="#cost .legend") as found:
        yield found


def test_it_opens_with_all_its_figures(page: Any) -> None:
    assert page.title() == "resnet20 and se_resnet20"
    for name in ("errors", "gains", "curves", "cost"):
        assert page.locator(f"#{name} .main-svg").count() > 0
    assert page.locator("#errors .scatterlayer .trace").first.locator(".point").count() == 15
    assert page.locator(".answer").inner_text() == _comparison().answer


def test_a_group_is_called_as_it_is_named(page: Any) -> None:
    names = page.locator("#cost .legendtext").all_text_contents()
    assert names[:2] == ["resnet20", "se_resnet20"]
    assert names[2] == HOSTILE[:31] + "…"


def test_a_click_on_its_name_hides_the_curves_of_a_group_and_another_shows_them(page: Any) -> None:
    hidden = "document.getElementById('curves')._fullData.filter(t => t.visible == 'legendonly').length"
    for expected in (4, 0):
        # Two fast clicks would be a double click.
        page.wait_for_timeout(400)
        page.locator("#curves .legendtoggle").first.click()
        until(page, f"{hidden} == {expected}")
    assert page.locator("#curves .scatterlayer .trace").count() == 12


def test_buttons_change_what_is_shown(page: Any) -> None:
    def press(figure: str, text: str) -> None:
        page.locator(f"#{figure} .updatemenu-button", has_text=text).click()

    press("errors", "train error")
    until(page, "document.getElementById('errors').layout.xaxis.title.text == 'train error %'")
    until(page, "document.getElementById('errors').data[1].x[0] < 4")
    press("cost", "ms/step")
    until(page, "document.getElementById('cost').data[0].x[0] > 60")
    press("curves", "linear")
    until(page, "document.getElementById('curves')._fullLayout.yaxis.type == 'linear'")
    press("curves", "logarithmic")
    until(page, "document.getElementById('curves')._fullLayout.yaxis2.type == 'log'")
    assert page.evaluate("document.getElementById('curves')._fullLayout.yaxis.dtick") == "D2"


def test_nothing_makes_the_page_wider_than_the_window(page: Any) -> None:
    for window, width in widths(page):
        assert width <= window
