"""Mutants that compute the same, and why: no test can notice them."""

from __future__ import annotations

import re

# Patterns of the keys of mutants, as the survey prints them.
EQUIVALENT: dict[str, str] = {
    r"/gpu/(statistics|merging|excitation|gate_gradients|reductions)\.py.*int64\) -> ": (
        "numbers of samples, channels and parts are below 2^31; maps' addresses are test_arithmetic's"
    ),
    r"/gpu/arithmetic\.py::(extents|channels_of): .*(strided|blocks|samples).*int64\) -> ": (
        "it meets only numbers that are as wide"
    ),
    r"/gpu/arithmetic\.py::tanh: tl\.abs\(v\) < 0\.75 -> ": "both forms are exact there",
    r"/gpu/arithmetic\.py::(hardsigmoid: moved|activation: v) [<>]= [06]\.0 -> ": "both are that there",
    r"/gpu/\w+\.py::\w+: width > MAX_HIDDEN -> ": "either serves at that width",
    r"merge_moments_kernel: tl\.minimum\(.*\)\.to\(tl\.float32\) -> ": "an integer times a float32 is one",
    r"gate_gradients: normed and inner == \"identity\" -> ": "the kernel looks at neither in the other case",
    r"composite\.py::input_gradient: gm\.to\(v\.dtype\) -> ": "the product is as wide as the wider",
    r"composite\.py::gate_gradients: \w+ is not None and \w+ is not None -> ": "they come together",
    r"pointwise\.py::_product: bias\.to\(left\.dtype\) -> ": "autocast lowers the bias of baddbmm itself",
}


def reason(key: str) -> str | None:
    """Why a mutant computes the same; None where it does not."""
    return next((why for pattern, why in EQUIVALENT.items() if re.search(pattern, key)), None)
