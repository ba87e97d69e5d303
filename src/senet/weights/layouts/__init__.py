"""The layouts of weights that exist for our networks, a file a library."""

from senet.weights.layout import IMAGENET, Layout
from senet.weights.layouts import (
    cadene,
    caffe,
    mmpretrain,
    monai,
    moskomule,
    nvidia,
    pytorchcv,
    timm,
    torchvision,
)

# By the names that users call them.
PREPROCESSINGS = {
    "imagenet": IMAGENET,
    "inception": {**IMAGENET, "size": 299, "resize": 333, "mean": [0.5] * 3, "std": [0.5] * 3},
    "caffe": caffe.PREPROCESSING,
}

# A file is of the first one that all of its keys fit.
LAYOUTS: tuple[Layout, ...] = (
    *caffe.LAYOUTS,
    *cadene.LAYOUTS,
    *timm.LEGACY,
    *torchvision.LAYOUTS,
    *timm.LAYOUTS,
    *moskomule.LAYOUTS,
    *pytorchcv.LAYOUTS,
    *mmpretrain.LAYOUTS,
    *nvidia.LAYOUTS,
    *monai.LAYOUTS,
)
