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
    r"composite\.py::input_gradient: gm\.to\(v\.dtype\) -> ": "the product is as wide as the wider",
    r"composite\.py::(\w*gradients?|_normalised): (\w+ is (not )?None (and|or) )+\w+ is (not )?None -> ": (
        "they come together"
    ),
    r"fused\.py::backward: norm is not None and spec\.norm == \"batch\" -> \(spec": "a batch's norm is one",
    r"aten\.py::backward: _cast\(g, ctx\.residual\) -> ": "autograd casts it itself",
    r"aten\.py::_cast: tensor if .* -> \(tensor\.to": "but for torch 2.11, whose Dynamo loses gradients",
    r"fused\.py::_differentiably: need and each is not None -> \(need\)": "None needs no gradient",
    r"steps\.hpp::exponential: x [<>] -?\d+\.0f -> x [<>]= ": "both are that there",
    r"steps\.hpp::exponential: bits.* -> bits<std::uint32_t>\(shifted\)$": "the rest is shifted out",
    r"(steps|gates)\.hpp::\w+: (.* \+ 3 < 0 -> .* <= 0|above > 6 -> above >= 6)$": "both are that there",
    r"moments\.hpp::moments_of_tile: width > LINE -> width >= LINE$": "only the way is another",
    r"moments\.hpp::moments_of_tile: width > LINE \? .* -> (0|count - .*)$": "only the way is another",
    r"moments\.hpp::moments_of_tile: count - count % \(.* -> -": "below 0 is as good as 0",
    r"moments\.hpp::moments: merged \+ pairs -> merged$": (
        "they are written when what they overwrite is no longer needed"
    ),
    r"steps\.hpp::at: out <= a\.f4 -> out < a\.f4$": "either is a zero",
    r"steps\.hpp::at: maps == 2 \? a\.y - a\.mean : A\(0\) -> a\.y - a\.mean$": "it is not used there",
    r"moments\.hpp::merge: any \? 1 / into\.count : 0 -> 1 / into\.count$": "only used where there are any",
    r"tail\.cpp::over_tile: Step::sums > (\d) -> Step::sums >= \1$": "it adds zeros, which nobody takes",
    r"tail\.cpp::sweep: before < 0 -> before <= 0$": "what stands there is written once more",
    r"tail\.cpp::sweep: k < FACTORS && !step\.one -> k < FACTORS$": "of such lines only the first is read",
    r"tail\.cpp::sweep: direct && step\.writes -> direct$": "it is used only where the step writes",
    r"maps\.hpp::to_float16: magnitude (< 0x388|>= 0x477ff)\w+ -> magnitude [<>]=? 0x": "both are that there",
    r"maps\.hpp::own_type: .* -> FLOAT64$": "numbers are copied as they are, and none in float64 to float32",
    r"maps\.hpp::samples: more \* channels .* && more <= positions -> more \* channels": "only cut otherwise",
    r"maps\.hpp::samples: ITEM / channels( / tile)? -> ITEM( / channels)?$": "only cut otherwise",
    r"maps\.hpp::samples: (ITEM / 2|positions \* channels) .*-> ": "only cut otherwise",
    r"maps\.hpp::samples: \(?samples \+ group - 1\)?( / group)? -> \(?samples \+": "more groups, of nothing",
    r"maps\.hpp::over_items: backwards \? .* -> (end - 1 - \(i - begin\)|i)$": "only the order",
    r"maps\.hpp::threads: samples \* channels": "only how many threads compute",
    r"maps\.hpp::everywhere: (threads|items) <= 1 ": "a team of one thread, or some without work",
    r"tail\.cpp::sweep: (buffer \+ step\.maps \* tile -> buffer|step\.maps \* tile -> tile)$": (
        "each number is written where the same one was read before"
    ),
    r"tail\.cpp::sweep: step\.writes && !direct -> step\.writes$": "numbers are copied to where they are",
    r"pointwise\.py::_product: bias\.to\(left\.dtype\) -> ": "autocast lowers the bias of baddbmm itself",
}


def reason(key: str) -> str | None:
    """Why a mutant computes the same; None where it does not."""
    return next((why for pattern, why in EQUIVALENT.items() if re.search(pattern, key)), None)
