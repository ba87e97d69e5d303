"""The arithmetic of SE, beneath every module: tensors in, tensors out, no policy.

``reference`` is the truth: plain PyTorch, layer by layer, that any faster form is compared with.
``aten`` and ``fused`` are the two fast forms of a branch's tail: one for compilers, one for eager
mode, whose steps (``operators``) run in ``composite`` PyTorch, C++ (``cpp``) or Triton (``gpu``).
"""

from senet.kernels.backends import why as why
