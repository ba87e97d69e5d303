from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

import senet
from senet.data import open_data
from senet.data.preprocessing import Preprocessing
from senet.errors import DataError, OptionError, WeightsError
from senet.evaluation import together
from senet.evaluation.averaging import Average
from senet.evaluation.classification import Evaluation, batches_of, evaluate
from senet.evaluation.members import Member
from senet.evaluation.together import Evaluations, evaluate_models

CPU = torch.device("cpu")
SMALL = Preprocessing(1, 8, 8, (0.3,), (0.4,))
LARGE = Preprocessing(1, 16, 18, (0.2,), (0.3,))


@pytest.fixture
def models(tmp_path: Path) -> list[str]:
    """Three networks for digits, of which two have other images than the third."""
    classes = list(open_data("digits").classes)
    names = []
    for seed, preprocessing in enumerate((SMALL, LARGE, SMALL)):
        torch.manual_seed(seed)
        model = senet.build("se_resnet20", num_classes=10, in_channels=1)
        header = {"preprocessing": preprocessing.to_dict(), "classes": classes, "data": "digits"}
        names.append(str(tmp_path / f"{seed}.safetensors"))
        senet.weights.save(model, names[-1], header=header)
    return names


def _probabilities(name: str, preprocessing: Preprocessing) -> torch.Tensor:
    """The softmax for each test image, all in one batch and in float64 from the scores on."""
    source = open_data("digits").test
    transform = preprocessing.evaluation()
    images = torch.stack([transform(source.read(index)[0]) for index in range(len(source))])
    with torch.inference_mode():
        scores: torch.Tensor = senet.load(name)(preprocessing.normalise(images))
    return scores.double().softmax(1)


def test_one_network_is_evaluated_as_its_weights_say(models: list[str]) -> None:
    model: Any = senet.load(models[1])
    model.to(memory_format=torch.channels_last)
    wanted = evaluate(model, batches_of(open_data("digits").test, LARGE), LARGE, device=CPU)
    found = evaluate_models(models[1])
    assert found.rows == [{"model": models[1], "data": "digits"} | wanted.to_dict()]
    assert found.average is None


def test_several_are_evaluated_alone_and_together(models: list[str]) -> None:
    found = evaluate_models(*models, batch_size=100)
    assert [row["model"] for row in found.rows] == [*models, "average of 3"]
    for name, evaluation in found.models:
        # In the same batches, and so to the bit.
        assert (evaluation,) == tuple(each for _, each in evaluate_models(name, batch_size=100).models)
    chances = [_probabilities(name, how) for name, how in zip(models, (SMALL, LARGE, SMALL), strict=True)]
    source = open_data("digits").test
    labels = torch.tensor([source.read(index)[1] for index in range(len(source))])
    mean = torch.stack(chances).mean(0)
    assert found.average is not None
    assert found.average.images == 360
    assert found.average.loss == pytest.approx(F.nll_loss(mean.log(), labels).item(), rel=1e-6)
    assert found.average.correct1 == (mean.argmax(1) == labels).sum()
    assert found.average.correct5 == (mean.topk(5).indices == labels[:, None]).sum()
    assert found.average.loss < max(each.loss for _, each in found.models), "it is concave"


def test_order_and_repetition_change_nothing(models: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    added: list[float] = []
    add = Average.add

    def noted(average: Average, scores: list[torch.Tensor]) -> None:
        added.append(scores[0][0, 0].item())
        add(average, scores)

    monkeypatch.setattr(Average, "add", noted)
    averages = [evaluate_models(*order).average for order in (models, models[::-1], models[1:] + models[:1])]
    assert averages[0] == averages[1] == averages[2]
    assert added[:3] == added[3:6] == added[6:], "summed in one order, so that no rounding differs"
    twice = evaluate_models(models[0], models[0])
    (_, alone), _ = twice.models
    assert twice.average is not None
    assert (twice.average.correct1, twice.average.correct5) == (alone.correct1, alone.correct5)
    assert twice.average.loss == pytest.approx(alone.loss, rel=1e-6)


def test_views_are_averaged_within_each_network(models: list[str]) -> None:
    found = evaluate_models(*models[:2], size=8, scales=(8, 10))
    source = open_data("digits").test
    labels = torch.tensor([source.read(index)[1] for index in range(len(source))])
    mean = torch.zeros(360, 10, dtype=torch.float64)
    for name, how in zip(models, (SMALL, LARGE), strict=False):
        sized = Preprocessing(1, 8, 8, how.mean, how.std)
        views = sized.views((8, 10), 1)
        images = torch.stack([views(source.read(index)[0]) for index in range(360)])
        model = senet.load(name)
        with torch.inference_mode():
            for index in range(2):
                mean += model(sized.normalise(images[:, index])).double().softmax(1) / 4
    assert found.average is not None
    assert found.average.correct1 == (mean.argmax(1) == labels).sum()
    assert found.average.loss == pytest.approx(F.nll_loss(mean.log(), labels).item(), rel=1e-6)


def test_what_is_wrong_is_found_before_the_first_batch(
    models: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("a network was loaded")

    monkeypatch.setattr(Member, "network", never)
    eleven = models[0].replace("0.safe", "eleven.safe")
    header = {"preprocessing": SMALL.to_dict(), "data": "digits"}
    senet.weights.save(senet.build("resnet20", num_classes=11, in_channels=1), eleven, header=header)
    other = models[0].replace("0.safe", "other.safe")
    senet.weights.save(
        senet.build("resnet20", num_classes=10, in_channels=1), other, header=header | {"data": "folder:a"}
    )
    with pytest.raises(WeightsError, match=r"eleven.safetensors' on 'digits': the weights know 11 classes"):
        evaluate_models(models[0], eleven)
    with pytest.raises(OptionError, match=r"0.safetensors on digits, \S+other.safetensors on folder:a"):
        evaluate_models(models[0], other)
    wrong: list[tuple[str, dict[str, Any]]] = [
        ("crops=5", {"crops": 5}),
        ("a crop of 16 pixels does not fit", {"scales": (18, 8)}),
        ("scale=0", {"scales": (0,)}),
        ("size=0", {"size": 0}),
        ("at most 10,000", {"scales": (20, 20_000)}),
        ("batch_size=0", {"batch_size": 0}),
        ("one MODEL beside it", {"weights": models[0]}),
    ]
    for words, options in wrong:
        with pytest.raises(OptionError, match=words):
            evaluate_models(*models[:2], **options)
    with pytest.raises(OptionError, match="one or more"):
        evaluate_models()


def test_a_name_needs_data(models: list[str], tmp_path: Path) -> None:
    bare = str(tmp_path / "bare.safetensors")
    senet.weights.save(senet.build("se_resnet20", num_classes=10, in_channels=1), bare)
    with pytest.raises(OptionError, match="Give --data"):
        evaluate_models("se_resnet20", weights=bare)
    with pytest.raises(WeightsError, match="Give --preprocessing: data"):
        evaluate_models("se_resnet20", weights=bare, data="digits")
    found = evaluate_models("se_resnet20", weights=bare, data="digits", preprocessing="data")
    assert found.models[0][1].images == 360


def test_images_that_come_and_go_are_no_average(models: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    passes = iter([Evaluation(2, 1, 1, 0.5), Evaluation(2, 1, 1, 0.5, ("an image",))])
    monkeypatch.setattr(together, "evaluate", lambda *_, **__: next(passes))
    with pytest.raises(DataError, match="in one pass over them and not in another"):
        evaluate_models(*models[:2])


def test_the_table_prints_and_saves(tmp_path: Path) -> None:
    one, other = Evaluation(200, 150, 199, 0.5, ("x",)), Evaluation(200, 160, 199, 0.4, ("x",))
    found = Evaluations("digits", (("a", one), ("b", other)), Evaluation(200, 170, 200, 0.3, ("x",)))
    assert found.broken == ("x",)
    assert str(found).splitlines()[-1].split() == "average of 2 digits 200 170 200 85 100 0.3 1".split()
    found.save(tmp_path / "a.csv")
    assert (tmp_path / "a.csv").read_text().splitlines()[
        -1
    ] == "average of 2,digits,200,170,200,85.0,100.0,0.3,1"


def test_a_network_without_numbers_has_no_accuracy(models: list[str], tmp_path: Path) -> None:
    lost = senet.load(models[0])
    with torch.no_grad():
        lost.get_parameter("fc.bias").fill_(torch.nan)
    senet.weights.save(lost, tmp_path / "lost.safetensors", header=senet.weights.recognise(models[0]).header)
    with pytest.raises(WeightsError, match="the loss is nan"):
        evaluate_models(str(tmp_path / "lost.safetensors"))
