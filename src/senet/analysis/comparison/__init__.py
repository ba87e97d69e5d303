"""Variants of a network, each trained with several seeds, side by side."""
