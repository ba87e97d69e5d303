"""Weights on disk: our file, whose header says which network they are of, and everybody else's."""

from senet.weights.hub import push as push
from senet.weights.published import PublishedWeights as PublishedWeights
from senet.weights.published import published_weights as published_weights
from senet.weights.recognition import LIBRARIES as LIBRARIES
from senet.weights.recognition import Weights as Weights
from senet.weights.recognition import as_they_are as as_they_are
from senet.weights.recognition import recognise as recognise
from senet.weights.sources import is_remote as is_remote
from senet.weights.store import BEST as BEST
from senet.weights.store import LAST as LAST
from senet.weights.store import read as read
from senet.weights.transfer import load as load
from senet.weights.transfer import save as save
