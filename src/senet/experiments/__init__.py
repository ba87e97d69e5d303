"""Comparing and ablating: grids as data, cells as run folders that any number of processes share."""
