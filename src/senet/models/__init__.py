"""The networks of the paper, plain and SE from one definition, and the registry of their names."""

from senet.models import inception as inception  # registers its networks
from senet.models import inception_resnet as inception_resnet  # registers its networks
from senet.models import mobilenet as mobilenet
from senet.models import preresnet as preresnet  # registers its networks
from senet.models import resnet as resnet  # registers its networks
from senet.models import shakeshake as shakeshake  # registers its networks
from senet.models import shufflenet as shufflenet
from senet.models import vgg as vgg  # registers its networks
from senet.models.catalogue import Catalogue as Catalogue
from senet.models.catalogue import described as described
from senet.models.loading import load as load
from senet.models.loading import path_named as path_named
from senet.models.network import Level as Level
from senet.models.network import Network as Network
from senet.models.registry import ModelInfo as ModelInfo
from senet.models.registry import NetworkConfig as NetworkConfig
from senet.models.registry import build as build
from senet.models.registry import info as info
from senet.models.registry import list_models as list_models
from senet.models.registry import parameter_count as parameter_count
