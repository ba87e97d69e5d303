"""OpenCV as an independent runtime of Caffe's networks: a script for an environment that has it.

OpenCV 5 reads Caffe no more, so that it is 4's (opencv-python-headless<5). The script needs NumPy and
cv2 alone: ``PYTHON caffe_opencv.py PROTOTXT CAFFEMODEL IMAGES.npy RESULT.npy [TOP]``.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


def run_in(
    python: str, prototxt: Path, caffemodel: Path, images: NDArray[Any], folder: Path, top: str = "prob"
) -> NDArray[np.float32]:
    """What OpenCV, in the environment of this Python, makes of images (N, C, H, W)."""
    np.save(folder / "images.npy", images.astype(np.float32))
    files = [prototxt, caffemodel, folder / "images.npy", folder / "result.npy"]
    subprocess.run([python, __file__, *map(str, files), top], check=True, timeout=300)
    result: NDArray[np.float32] = np.load(folder / "result.npy")
    return result


def _axpy_as_opencv_reads_it(text: str) -> str:
    """The text with the second and third bottom of every Axpy exchanged.

    OpenCV computes bottom 0 × bottom 2 + bottom 1, where Axpy is bottom 0 × bottom 1 + bottom 2.
    """
    bottom = r'bottom:\s*"[^"]*"\s*'
    return re.sub(rf'(type:\s*"Axpy"\s*{bottom})({bottom})({bottom})', r"\1\3\2", text)


def _main(prototxt: str, caffemodel: str, images: str, result: str, top: str = "prob") -> None:
    import cv2  # type: ignore[import-not-found]

    text = _axpy_as_opencv_reads_it(Path(prototxt).read_text())
    net = cv2.dnn.readNetFromCaffe(np.frombuffer(text.encode(), np.uint8), np.fromfile(caffemodel, np.uint8))
    net.enableWinograd(False)  # Quicker, and less exact.
    tops = []
    for image in np.load(images):
        net.setInput(image[None])
        tops.append(net.forward(top)[0])
    np.save(result, np.stack(tops))


if __name__ == "__main__":
    _main(*sys.argv[1:])
