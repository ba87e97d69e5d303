"""PyTorch's exporters say what they do, try, and will change one day; here only their errors are of use."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator

_LOGGERS = ("torch._export", "torch.export", "torch.fx", "torch.onnx")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No warnings of PyTorch's exporters and readers while the body runs."""
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            for kind in (FutureWarning, DeprecationWarning):
                warnings.simplefilter("ignore", kind)
            # Of bytes that nobody will write to.
            warnings.filterwarnings("ignore", "The given buffer is not writable", UserWarning)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
