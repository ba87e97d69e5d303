"""The files that hold bars; importing them registers the bars, in the order of the table."""

import importlib

_NAMES = (
    *("recovery", "elastic", "hosts", "soak", "slow_link", "experiments"),
    *("storage", "order", "nonfinite", "hostile", "footprint"),
)
FILES = tuple(importlib.import_module(f"surveys.reliability.{name}") for name in _NAMES)
