"""A sample of the survey in docs/insertion.md."""

import pytest
from surveys.insertion import examine, names

SAMPLE = (
    "alexnet",
    "googlenet",
    "timm:convmixer_768_32",
    "timm:dla34",
    "timm:res2net50_48w_2s",
    "timm:dpn48b",
)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "name", [*SAMPLE, "densenet121", "inception_v3", "timm:hrnet_w18_small", "timm:xception41"]
)
def test_networks_of_the_survey(name: str) -> None:
    row = examine(name)
    assert row["sites"] > 0
    assert row["unchanged"]
    assert row["keys kept"]
    assert row["trains"]
    assert row["exports"]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["squeezenet1_1", "timm:mobilenetv1_100", "timm:convnext_atto"])
def test_a_quick_sample_of_the_survey(name: str) -> None:
    row = examine(name, export=False)
    assert (row["unchanged"], row["keys kept"], row["trains"]) == (True, True, True)


def test_the_survey_is_large_enough() -> None:
    assert len([name for name in names() if name.startswith("timm:")]) >= 300
    assert "resnet50" in names()
