"""Leaves out every term of the arithmetic, one at a time, and sees whether a test fails.

    python -m surveys.mutations                    # every file; hours on 2 cores
    python -m surveys.mutations gpu/elementwise    # files whose path has this in it
    python -m surveys.mutations --list cpp         # only what would be tried

A mutant is killed when its file's tests fail or do not end. One that survives is a term that no test
needs: write the test, or, where it computes the same, its reason into ``equivalent.py``. A file whose
tests fail without a mutant is not tried.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
from collections import Counter
from pathlib import Path

from senet.files import write_text
from surveys.mutations.equivalent import reason
from surveys.mutations.mutants import mutants
from surveys.mutations.targets import TARGETS
from surveys.mutations.trial import outcomes

ROOT = Path(__file__).parents[2]


def main(arguments: list[str] | None = None) -> int:
    """The command; its exit status is 1 where mutants survived."""
    parser = argparse.ArgumentParser(prog="surveys.mutations", description=str(__doc__).split("\n")[0])
    parser.add_argument("names", nargs="*", default=[""], help="parts of paths of files")
    parser.add_argument("--list", action="store_true", help="try none")
    parser.add_argument("--sample", type=int, default=0, help="of each file only so many, drawn at random")
    parser.add_argument("--lines", default="", help="only these, as in 20-45")
    parser.add_argument(
        "--seconds", type=int, default=120, help="of the processor, after which a mutant hangs"
    )
    parser.add_argument("--out", type=Path, help="a file for what became of each")
    asked = parser.parse_args(arguments)
    first, _, last = asked.lines.partition("-")
    within = range(int(first or 0), int(last or first or 1 << 30) + 1)
    rows: list[dict[str, object]] = []
    for target in TARGETS:
        if not any(name in target.file for name in asked.names):
            continue
        every = mutants(ROOT, target.file, target.functions)
        found = [index for index, each in enumerate(every) if each.line in within]
        fresh = [index for index in found if reason(every[index].key) is None]
        rows += [{"file": target.file, "outcome": "equivalent"}] * (len(found) - len(fresh))
        if asked.list:
            print("\n".join(f"{every[index].line} {every[index].key}" for index in fresh))
            continue
        if asked.sample and len(fresh) > asked.sample:
            rows += [{"file": target.file, "outcome": "not tried"}] * (len(fresh) - asked.sample)
            fresh = sorted(random.Random(0).sample(fresh, asked.sample))
        with tempfile.TemporaryDirectory() as folder:
            became = outcomes(ROOT, Path(folder), target, fresh, asked.seconds)
            if next(became, "") != "survived":
                print(f"{target.file}: its tests fail as it is")
                return 2
            for index, outcome in zip(fresh, became, strict=True):
                mutant = every[index]
                rows.append({"file": mutant.file, "line": mutant.line, "key": mutant.key, "outcome": outcome})
                if outcome in ("survived", "hung"):
                    print(f"{outcome} {mutant.line} {mutant.key}", flush=True)
                if asked.out:
                    write_text(asked.out, "".join(json.dumps(row) + "\n" for row in rows))
    for file in dict.fromkeys(str(row["file"]) for row in rows):
        counts = Counter(str(row["outcome"]) for row in rows if row["file"] == file)
        print(
            f"{file}: {sum(counts.values())} mutants, "
            + ", ".join(f"{n} {kind}" for kind, n in counts.items())
        )
    return int(any(row["outcome"] == "survived" for row in rows))


if __name__ == "__main__":
    sys.exit(main())
