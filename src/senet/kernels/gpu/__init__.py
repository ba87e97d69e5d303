"""The steps of the fused tail in Triton: the names, arguments and results are ``composite``'s.

Importing this package imports Triton; ``senet`` does not until a step is asked for. Maps are
float32, bfloat16 or float16, each dense in the memory format of u, and everything is summed in
float32. What a program takes of a map is a function of the map's shape and layout
(``configurations``), and nothing is added atomically: the same numbers give the same bits.
"""

from senet.kernels.gpu.elementwise import apply, input_gradient
from senet.kernels.gpu.excitation import excitation
from senet.kernels.gpu.gate_gradients import gate_gradients
from senet.kernels.gpu.reductions import moments, pool, reduce
from senet.kernels.gpu.statistics import statistics

__all__ = [
    "moments",
    "pool",
    "apply",
    "reduce",
    "input_gradient",
    "statistics",
    "excitation",
    "gate_gradients",
]
