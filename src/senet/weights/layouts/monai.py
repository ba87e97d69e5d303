"""MONAI's SENets in two dimensions: Cadene's networks, with blocks of its own names.

Its own loader of Cadene's weights passes over all units from the eleventh of a stage on.
"""

from senet.weights.keys import Row
from senet.weights.layout import Layout
from senet.weights.layouts.cadene import DEEP, RESIDUAL

_UNITS = (
    Row("layer{s}.{u}.conv{i}.conv.{*}", "layer{s}.{u}.conv{i}.{*}"),
    Row("layer{s}.{u}.conv{i}.adn.N.{*}", "layer{s}.{u}.bn{i}.{*}"),
    Row("layer{s}.{u}.project.conv.{*}", "layer{s}.{u}.downsample.0.{*}"),
    Row("layer{s}.{u}.project.adn.N.{*}", "layer{s}.{u}.downsample.1.{*}"),
    Row("layer{s}.{u}.se_layer.fc.0.{*}", "layer{s}.{u}.se.fc1.{*}"),
    Row("layer{s}.{u}.se_layer.fc.2.{*}", "layer{s}.{u}.se.fc2.{*}"),
)

LAYOUTS = (
    Layout(
        "monai",
        (*_UNITS, *RESIDUAL),
        {
            "se_resnet50": "SEResNet50",
            "se_resnet101": "SEResNet101",
            "se_resnet152": "SEResNet152",
            "se_resnext50_32x4d": "SEResNext50",
            "se_resnext101_32x4d": "SEResNext101",
        },
        sits="original",
    ),
    Layout("monai", (*_UNITS, *DEEP), {"senet154": "SENet154"}, sits="original"),
)
