"""A comparison of variants, to look at."""
