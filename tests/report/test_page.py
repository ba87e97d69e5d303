import base64
import io
import re
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from senet.errors import MissingExtraError
from senet.report.page import Html, Page, details, element, escaped, facts, picture, table

HOSTILE = "</td><script>alert(1)</script> \"a\" & 'b'"


@settings(max_examples=30)
@given(st.text())
def test_text_is_no_markup(text: str) -> None:
    found = escaped(text)
    assert not set(found) & set("<>\"'")
    assert escaped(found) is found


def test_names_that_are_no_unicode_are_written(tmp_path: Path) -> None:
    page = Page("x\udcff")
    page.save(tmp_path / "a.html")
    assert "<title>x?</title>" in (tmp_path / "a.html").read_text()


def test_elements_escape_what_they_hold_but_not_each_other() -> None:
    found = element("p", element("b", "<"), "&", kind="a b", title='"')
    assert found == '<p class="a b" title="&quot;"><b>&lt;</b>&amp;</p>'
    assert details("s", Html("<i></i>")) == "<details><summary>s</summary><i></i></details>"
    assert facts({"a": 1}) == "<dl><div><dt>a</dt><dd>1</dd></div></dl>"


def test_a_table_shows_numbers_short_and_to_the_right() -> None:
    found = table(
        [{"n": 12345, "x": 0.123456, "t": HOSTILE, "b": True}, {"n": 1, "x": None, "t": "", "b": False}]
    )
    assert '<td class="number">12,345</td><td class="number">0.123</td>' in found
    assert '<td class="number">–</td>' in found
    assert '<th class="text">t</th>' in found
    assert "yes</td>" in found
    assert "<script>" not in found
    assert table([])


@pytest.mark.parametrize(("size", "shown"), [((300, 150), (40, 20)), ((8, 8), (40, 40)), ((1, 500), (1, 40))])
def test_a_picture_is_small_and_in_the_page(size: tuple[int, int], shown: tuple[int, int]) -> None:
    found = picture(Image.new("L", size, 200), size=40, alt=HOSTILE)
    width, height = shown
    assert f'width="{width}" height="{height}">' in found
    assert "<script>" not in found
    data = re.search(r"data:image/jpeg;base64,([^\"]+)", found)
    assert data
    with Image.open(io.BytesIO(base64.b64decode(data[1]))) as image:
        assert max(image.size) <= 80


def test_a_page_has_its_parts_in_order_and_a_list_of_its_sections() -> None:
    page = Page("T & t", "about")
    page.banner("careful")
    page.section("One", "lead")
    page.add("plain <", Html("<hr>"))
    page.section("Two")
    found = page.html()
    parts = [
        "<title>T &amp; t",
        ">about<",
        "#section-2",
        ">careful<",
        '"section-1">One',
        ">lead<",
        "&lt;",
        "<hr>",
    ]
    places = [found.index(part) for part in parts]
    assert places == sorted(places)
    assert "plotly" not in found.lower()


def test_nothing_may_be_loaded_and_only_scripts_of_known_checksum_run() -> None:
    graph_objects = pytest.importorskip("plotly.graph_objects", reason="plotly is not installed")
    page = Page("x")
    for name in ("a", "b"):
        page.figure(graph_objects.Figure().add_scatter(y=[1, 2], name=HOSTILE), name=name)
    found = page.html()
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', found)
    assert policy
    rules = dict(rule.split(" ", 1) for rule in policy[1].split("; "))
    allowed = {"img-src": "data: blob:", "style-src": "'unsafe-inline'"}
    closed = dict.fromkeys(["default-src", "base-uri", "form-action"], "'none'")
    assert rules == closed | allowed | {"script-src": rules["script-src"]}
    # The library, once, and a script a figure.
    assert policy[1].count("sha256-") == len(re.findall(r"<script>", found)) == 3
    assert not re.search(r"<script[^>]*src|<link|@import|url\(", found.partition("<main>")[2])
    assert "alert(1)</script>" not in found


def test_the_same_page_is_the_same_file(tmp_path: Path) -> None:
    graph_objects = pytest.importorskip("plotly.graph_objects", reason="plotly is not installed")
    for name in ("a.html", "b.html"):
        page = Page("x")
        page.figure(graph_objects.Figure().add_scatter(y=[1, 2]), name="figure")
        page.save(tmp_path / name)
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()


def test_without_plotly_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "plotly.io", None)
    with pytest.raises(MissingExtraError, match=r"HTML page.*pip install 'senet\[plot\]'"):
        Page("x").figure(None, name="x")
