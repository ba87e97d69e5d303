"""Weights on disk: safetensors whose header says which network they are of."""

from senet.weights.store import BEST as BEST
from senet.weights.store import LAST as LAST
from senet.weights.store import load as load
from senet.weights.store import read as read
from senet.weights.store import save as save
