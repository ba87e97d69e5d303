"""The networks of the paper, plain and SE from one definition, and the registry of their names."""

from senet.models import inception as inception  # registers its networks
from senet.models import inception_resnet as inception_resnet  # registers its networks
from senet.models import mobilenet as mobilenet
from senet.models import preresnet as preresnet  # registers its networks
from senet.models import resnet as resnet  # registers its networks
from senet.models import shakeshake as shakeshake  # registers its networks
from senet.models import shufflenet as shufflenet
from senet.models import vgg as vgg  # registers its networks
from senet.models.building import build as build
from senet.models.building import parameter_count as parameter_count
from senet.models.catalogue import Catalogue as Catalogue
from senet.models.catalogue import described as described
from senet.models.conversion import Conversion as Conversion
from senet.models.conversion import convert as convert
from senet.models.identify import network_of as network_of
from senet.models.loading import load as load
from senet.models.loading import weights_named as weights_named
from senet.models.network import Level as Level
from senet.models.network import Network as Network
from senet.models.registry import ModelInfo as ModelInfo
from senet.models.registry import NetworkConfig as NetworkConfig
from senet.models.registry import info as info
from senet.models.registry import list_models as list_models
from senet.models.timm_plugin import register_with_timm as register_with_timm
