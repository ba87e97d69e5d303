"""The files that hold bars; importing them registers the bars, in the order of the table."""

from surveys.reliability import recovery, experiments, storage, order, nonfinite, hostile, footprint  # noqa: I001

FILES = (recovery, experiments, storage, order, nonfinite, hostile, footprint)
