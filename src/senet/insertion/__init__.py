"""Where SE stands in a network: the paper's placements as data."""
