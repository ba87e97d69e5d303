"""What was measured last, kept beside this file and written into docs/reliability.md."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from senet.files import write_text
from senet.passport import passport
from surveys.reliability.bars import BARS
from surveys.reliability.harness import ROOT

RESULTS = Path(__file__).with_name("results.jsonl")
DOCUMENT = ROOT / "docs" / "reliability.md"
MARKS = ("<!-- survey: begin -->\n", "<!-- survey: end -->\n")


def keep(row: Mapping[str, Any]) -> None:
    """Takes a row in, in place of the one that was there, with what it was measured on."""
    found = passport()
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    machine = found["machine"]
    on = f"{machine['system']}, {machine['processor']}, {machine['cores']} cores; {versions}"
    rows = known() | {row["name"]: {**row, "on": on}}
    write_text(RESULTS, "".join(json.dumps(rows[name]) + "\n" for name in BARS if name in rows))


def known() -> dict[str, dict[str, Any]]:
    """The rows so far, by the names of the bars."""
    lines = RESULTS.read_text(encoding="utf-8").splitlines() if RESULTS.exists() else []
    return {row["name"]: row for row in map(json.loads, lines)}


def write() -> None:
    """Puts the table between the marks in the document."""
    rows = list(known().values())
    lines = ["| | promise | how it is tested | last measured |", "|---|---|---|---|"]
    for row in rows:
        date = row["date"] + ("" if row["full"] else ", not at full size")
        lines.append(
            f"| {row['bar']} `{row['name']}` | {row['promise']} | {row['how']} | {row['measured']} ({date}) |"
        )
    minutes = sum(row["seconds"] for row in rows) / 60
    lines += ["", f"All of it took {minutes:.0f} minutes. Measured on:", ""]
    lines += [f"- {on}" for on in dict.fromkeys(row["on"] for row in rows)]
    head, _, rest = DOCUMENT.read_text(encoding="utf-8").partition(MARKS[0])
    tail = rest.partition(MARKS[1])[2]
    write_text(DOCUMENT, head + MARKS[0] + "\n".join(lines) + "\n" + MARKS[1] + tail)
