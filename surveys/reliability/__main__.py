"""The bars of reliability, as a command.

python -m surveys.reliability                     # all of them, at full size
python -m surveys.reliability resume --kills 20   # one of them, at a size of one's own
python -m surveys.reliability --write             # all of them, and into docs/reliability.md
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import traceback

# Before PyTorch is there: the processes that are started share few cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from surveys.reliability import document
from surveys.reliability.bars import BARS, BrokenPromiseError
from surveys.reliability.every import FILES


def main(words: list[str]) -> int:
    """Runs the bars that are named; the exit status is 1 where one of them does not hold."""
    parser = argparse.ArgumentParser(
        prog="python -m surveys.reliability",
        description=f"Tests what is promised: {len(BARS)} bars in {len(FILES)} files.",
    )
    parser.add_argument("bar", nargs="*", help=f"{', '.join(BARS)}; all without any")
    parser.add_argument("--write", action="store_true", help="the table into docs/reliability.md")
    for size in sorted({size for each in BARS.values() for size in each.sizes}):
        fitting = ", ".join(name for name, each in BARS.items() if size in each.sizes)
        parser.add_argument(f"--{size}", type=int, help=f"of {fitting}")
    args = parser.parse_args(words)
    unknown = [name for name in args.bar if name not in BARS]
    if unknown:
        parser.error(f"there is no bar {unknown[0]!r}")
    broken, started = 0, time.perf_counter()
    for name in args.bar or BARS:
        bar = BARS[name]
        print(f"{bar.number:4} {name}", flush=True)
        if lacking := bar.needs():
            print(f"     not tried: {lacking}", flush=True)
            continue
        sizes = {size: getattr(args, size) for size in bar.sizes if getattr(args, size) is not None}
        try:
            row = bar.run(**sizes)
        except Exception as error:
            broken += 1
            if not isinstance(error, BrokenPromiseError):  # a fault that the bar did not foresee
                traceback.print_exc()
            print(f"     BROKEN: {error}", flush=True)
            continue
        print(f"     {row['measured']}  ({row['seconds']} s)", flush=True)
        if args.write:
            document.keep(row)
    print(f"{broken} broken, {time.perf_counter() - started:.0f} s")
    if args.write and not broken:
        document.write()
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
