from senet.data.preprocessing import Preprocessing
from senet.models import list_models
from senet.weights.layout import named
from senet.weights.layouts import LAYOUTS, PREPROCESSINGS


def test_names_are_made_from_the_plain_one() -> None:
    assert named("se_resnet50 senet154", "se{}") == {"se_resnet50": "seresnet50", "senet154": "sesenet154"}
    assert named("vgg16_bn") == {"vgg16_bn": "vgg16_bn"}


def test_every_layout_is_of_networks_that_there_are() -> None:
    assert {name for layout in LAYOUTS for name in layout.networks} <= set(list_models())
    assert {layout.sits for layout in LAYOUTS} <= {"modern", "original"}


def test_every_preprocessing_is_one() -> None:
    found = [layout.preprocessing for layout in LAYOUTS if layout.preprocessing is not None]
    for values in (*found, *PREPROCESSINGS.values()):
        assert Preprocessing.from_dict(values).channels == 3
