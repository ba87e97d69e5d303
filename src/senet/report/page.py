"""One HTML page that needs nothing but itself: text, tables, plotly's figures, pictures.

What is given as text is escaped; HTML says by its type that it is HTML. No script runs but plotly's, whose
checksums the page names, and the browser loads nothing from anywhere.
"""

from __future__ import annotations

import base64
import hashlib
import html
import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from senet.errors import MissingExtraError
from senet.files import write_text
from senet.report.palette import BLUE, GREY, INK, LINES, PALE, VERMILION

if TYPE_CHECKING:
    from PIL.Image import Image
    from plotly.graph_objects import Figure

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', 'Liberation Sans', sans-serif"


class Html(str):
    """Text that is HTML already."""

    __slots__ = ()


def escaped(value: object) -> Html:
    """``value`` as HTML: as it is if it is HTML, else its text, of which nothing is markup."""
    if isinstance(value, Html):
        return value
    # Names of files may hold bytes that are no text.
    return Html(html.escape(str(value).encode("utf-8", "replace").decode()))


def element(tag: str, *children: object, **attributes: object) -> Html:
    """``<tag attributes>children</tag>``; ``kind="a b"`` becomes ``class="a b"``, children are escaped."""
    names = {"kind": "class"}
    given = "".join(f' {names.get(key, key)}="{escaped(value)}"' for key, value in attributes.items())
    return Html(f"<{tag}{given}>{''.join(map(escaped, children))}</{tag}>")


def table(rows: Sequence[Mapping[str, Any]], *, kind: str = "") -> Html:
    """A table of rows; the first row's keys are the columns. Numbers stand to the right, rounded.

    Args:
        rows: one mapping a row; values are text, numbers, None or Html.
        kind: a CSS class.
    """
    columns = list(rows[0]) if rows else []
    numeric = {column: all(isinstance(row[column], int | float | None) for row in rows) for column in columns}

    def line(tag: str, cells: Mapping[str, object]) -> Html:
        return element(
            "tr", *(element(tag, cells[name], kind="number" if numeric[name] else "text") for name in columns)
        )

    head = line("th", {name: name for name in columns})
    body = [line("td", {name: _shown(row[name]) for name in columns}) for row in rows]
    inner = element("table", element("thead", head), element("tbody", *body), kind=kind)
    return element("div", inner, kind="wide")


def _shown(value: object) -> object:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.3g}" if isinstance(value, float) else value


def facts(values: Mapping[str, object]) -> Html:
    """Names with their values, as a list of two columns."""
    return element(
        "dl", *(element("div", element("dt", name), element("dd", value)) for name, value in values.items())
    )


def details(summary: object, *inner: object) -> Html:
    """What is folded away until one clicks on its summary; no script is needed for it."""
    return element("details", element("summary", summary), *inner)


def picture(image: Image, *, size: int, alt: str) -> Html:
    """A small copy of an image, in the page itself.

    Args:
        image: of any size.
        size: of the longer side on the page, in pixels; smaller images are shown enlarged, pixel by pixel.
        alt: what stands for it where it is not seen, and when one points at it.
    """
    # JPEG, as a page has hundreds of them; at twice the size, for the screens that show it.
    small = image.convert("RGB")
    small.thumbnail((2 * size, 2 * size))
    file = io.BytesIO()
    small.save(file, "JPEG", quality=82)
    data = base64.b64encode(file.getvalue()).decode()
    scale = size / max(small.size)
    width, height = (max(1, round(side * scale)) for side in small.size)
    # An element without an end.
    attributes = element(
        "img", src=f"data:image/jpeg;base64,{data}", alt=alt, title=alt, width=width, height=height
    )
    return Html(attributes.removesuffix("</img>"))


class Page:
    """A page that grows from top to bottom.

    Args:
        title: of the page.
        about: a sentence below it.

    Example:
        >>> page = Page("Gates of se_resnet20")
        >>> page.section("Overview", "Each point is a block.")
        >>> page.figure(figure, "How much of a gate the class explains")
        >>> page.save("report.html")
    """

    def __init__(self, title: str, about: object = "") -> None:
        self.title = title
        self._head = element("h1", title) + (element("p", about, kind="about") if about else "")
        self._parts: list[str] = []
        self._sections: list[str] = []
        self._scripts: list[str] = []

    def section(self, title: str, *lead: object) -> None:
        """Begins a section, which the list at the top of the page then names; each lead is a paragraph."""
        self._sections.append(title)
        self._parts.append(element("h2", title, id=f"section-{len(self._sections)}"))
        self._parts += [element("p", text, kind="lead") for text in lead]

    def banner(self, text: object) -> None:
        """What must not be overlooked."""
        self._parts.append(element("p", text, kind="banner", role="note"))

    def add(self, *parts: object) -> None:
        """HTML as it is, anything else as a paragraph."""
        self._parts += [part if isinstance(part, Html) else element("p", part) for part in parts]

    def figure(self, figure: Figure, caption: object = "", *, name: str) -> None:
        """A figure of plotly's, in the look that all share; its layout says its height.

        Args:
            figure: it is changed: it gets the look.
            caption: below it.
            name: the id of its element, and its name when a reader saves it as a picture.

        Raises:
            MissingExtraError: plotly is not installed.
        """
        io_ = require_plotly().io
        figure.update_layout(template=_look())
        config = {
            "responsive": True,
            "displaylogo": False,
            # These and no others: plotly's own choice may upload the data to be shared.
            "modeBarButtons": [["toImage", "zoom2d", "pan2d", "resetScale2d"]],
            "showSendToCloud": False,
            "plotlyServerURL": "",
            "toImageButtonOptions": {"filename": name, "scale": 2},
        }
        markup = io_.to_html(figure, config=config, include_plotlyjs=False, full_html=False, div_id=name)
        # plotly has written every < of the data as \u003c.
        match = re.search(r"<script[^>]*>(.*)</script>", markup, re.DOTALL)
        script = match[1] if match else ""
        self._scripts.append(script)
        plot = element("div", kind="plot", id=name, style=f"height:{figure.layout.height or 450}px")
        below = [element("figcaption", caption)] if caption else []
        self._parts.append(element("figure", plot, Html(f"<script>{script}</script>"), *below))

    def html(self) -> str:
        """The whole page."""
        library = f"\n{require_plotly().offline.get_plotlyjs()}\n" if self._scripts else ""
        links = [
            element("a", title, href=f"#section-{number}") for number, title in enumerate(self._sections, 1)
        ]
        policy = (
            "default-src 'none'; base-uri 'none'; form-action 'none'; "
            "img-src data: blob:; style-src 'unsafe-inline'; "
            f"script-src {' '.join(map(_checksum, [library, *self._scripts]))}"
        )
        return _PAGE.format(
            policy=policy,
            title=escaped(self.title),
            style=_style(),
            library=library,
            head=self._head,
            links=element("nav", *links),
            body="\n".join(self._parts),
        )

    def save(self, path: str | Path) -> None:
        """Writes the page, whole or not at all."""
        write_text(path, self.html())


def plotly_text(text: str) -> str:
    """Text for plotly's figures: they take a little HTML for markup, and know no entities for quotes."""
    # Two dollars would be a formula.
    return escaped(text).replace("&quot;", '"').replace("&#x27;", "'").replace("$", "&#36;")


def require_plotly() -> Any:
    """The package plotly; MissingExtraError where it is not installed."""
    try:
        import plotly.io
        import plotly.offline
    except ImportError as error:
        raise MissingExtraError.of("plotly", extra="plot", need="the HTML page") from error
    return plotly


def _checksum(script: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


def _look() -> dict[str, Any]:
    """What all figures share: quiet axes, our colours, the page's font."""
    axis = {
        "gridcolor": PALE,
        "zeroline": False,
        "linecolor": PALE,
        "ticks": "",
        "automargin": True,
        "title": {"font": {"size": 12, "color": GREY}, "standoff": 8},
    }
    layout = {
        "font": {"family": FONT, "size": 12, "color": INK},
        "colorway": LINES,
        "paper_bgcolor": "white",
        "plot_bgcolor": "white",
        "xaxis": axis,
        "yaxis": axis,
        "margin": {"l": 60, "r": 20, "t": 40, "b": 40},
        "hoverlabel": {
            "bgcolor": "white",
            "bordercolor": PALE,
            "font": {"family": FONT, "size": 12, "color": INK},
        },
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
        "hovermode": "closest",
        "dragmode": "zoom",
    }
    return {"layout": layout}


def _style() -> str:
    colours = {"ink": INK, "grey": GREY, "line": PALE, "accent": BLUE, "warn": VERMILION, "font": FONT}
    root = "".join(f"--{name}: {value}; " for name, value in colours.items())
    return f":root {{ {root}}}\n{Path(__file__).with_name('page.css').read_text(encoding='utf-8')}"


_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style>
<script>{library}</script>
</head>
<body>
<header>{head}</header>
{links}
<main>
{body}
</main>
</body>
</html>
"""
