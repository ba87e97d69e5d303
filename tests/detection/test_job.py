import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.detection.small import OPTIONS, config
from tests.together import together
from torch import nn
from torchvision.models import resnet18

import senet
from senet import SqueezeExcitation, detection
from senet.detection.job import Detection, prepare
from senet.errors import DataError, OptionError, RunError, WeightsError
from senet.normalisation import is_batch_norm
from senet.runtime.processes import Processes
from senet.training.config import read_config
from senet.training.recipes import RECIPES
from senet.training.step import Step


def test_a_run_is_trained_tested_and_gone_on_with(coco_folder: Path, tmp_path: Path) -> None:
    said: list[str] = []
    whole = detection.train(config(coco_folder, run=tmp_path / "whole"), say=said.append)
    assert any("6 images of train2017 to train on, 3 of val2017" in line for line in said)
    rows = [json.loads(line) for line in (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [1, 2]
    assert rows[1]["train_loss"] < rows[0]["train_loss"]
    assert {"test_ap", "test_ap50", "test_ap75"} <= rows[0].keys()
    assert "test_top1" not in rows[0]
    assert whole.evaluation.images == 3
    again = detection.load(tmp_path / "whole")
    for key, tensor in whole.job.state.model.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[key])
    header, _ = senet.weights.store.read(tmp_path / "whole", tensors=False)
    assert header["classes"] == ["red", "blue"]
    assert header["categories"] == [3, 7]


def test_it_goes_on_bit_for_bit(coco_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    detection.train(config(coco_folder, run=tmp_path / "whole"))
    inputs = Detection.inputs

    def killed(job: Detection, *arguments: Any) -> Any:
        if job.state.step == 3:
            raise KeyboardInterrupt
        return inputs(job, *arguments)

    cut = config(coco_folder, run=tmp_path / "cut", save_minutes=0.0)
    with monkeypatch.context() as patch:
        patch.setattr(Detection, "inputs", killed)
        with pytest.raises(KeyboardInterrupt):
            detection.train(cut)
    detection.train(cut, resume=True)
    for name in ("last.safetensors", "metrics.csv"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_parts_of_a_step_are_all_its_images(coco_folder: Path) -> None:
    job = prepare(config(coco_folder, recipe={"batch_size": 6, "accumulate": 2}))
    (parts,) = [step for _, step in zip(range(1), job.steps(), strict=False)]
    assert [len(part.images) for part in parts] == [3, 3]
    assert sorted(target["number"] for part in parts for target in part.labels) == list(range(6))
    job.train_mode(0)
    loss = job.loss(parts[0], 0, job.network)
    images, targets = job.inputs(parts[0], 0)
    assert images[0].dtype == torch.float32
    assert 0 <= images[0].min() <= images[0].max() <= 1
    torch.testing.assert_close(loss, job.loss(parts[0], 0, job.network))  # what is drawn is of the step
    job.seed(0)
    assert loss.item() == pytest.approx(3 * sum(job.network(images, targets).values()).item(), rel=1e-4)


def _in_two(folder: Path, out: Path) -> None:
    recipe = {"frozen_norms": True, "epochs": 1, "batch_size": 6}
    result = detection.train(config(folder, run=out / "two", recipe=recipe))
    (out / f"{int(result.leads)}.json").write_text(json.dumps([result.history, result.evaluation.to_dict()]))


@pytest.mark.slow
def test_two_processes_are_one_that_takes_its_steps_in_two_parts(coco_folder: Path, tmp_path: Path) -> None:
    together(2, _in_two, coco_folder, tmp_path)
    first, second = (json.loads((tmp_path / f"{leads}.json").read_text()) for leads in (1, 0))
    assert first == second
    recipe = {"frozen_norms": True, "epochs": 1, "batch_size": 6, "accumulate": 2}
    alone = detection.train(config(coco_folder, run=tmp_path / "one", recipe=recipe))
    assert first[0][0]["train_loss"] == pytest.approx(alone.history[0]["train_loss"], rel=1e-5)
    shared = detection.load(tmp_path / "two").state_dict()
    for key, tensor in detection.load(tmp_path / "one").state_dict().items():
        torch.testing.assert_close(shared[key], tensor, rtol=1e-4, atol=1e-6)


def test_what_is_frozen_stays(coco_folder: Path) -> None:
    job = prepare(config(coco_folder, recipe={"frozen_norms": True, "frozen_stages": 3}))
    before = {key: value.clone() for key, value in job.state.model.state_dict().items()}
    frozen = job.train_mode(0)
    assert len(frozen) == 2 * len(job.state.model.norms)  # type: ignore[arg-type]
    (batches,) = [step for _, step in zip(range(1), job.steps(), strict=False)]
    Step(job, print)(batches, frozen)
    after = job.state.model.state_dict()
    changed = {key for key in after if not torch.equal(after[key], before[key])}
    assert not [key for key in changed if "running" in key or ".bn" in key]
    assert not [key for key in changed if "network.layer1" in key or "network.layer2" in key]
    assert [key for key in changed if "network.layer4" in key]
    assert [key for key in changed if "fpn" in key]


@pytest.mark.parametrize(
    ("name", "shares"), [("coco", [1, 1, 0.1, 0.01]), ("coco_conference", [1, 1, 1, 0.1])]
)
def test_whatever_a_recipe_says_happens(
    name: str, shares: list[float], coco_folder: Path, tmp_path: Path
) -> None:
    recipe = dataclasses.replace(RECIPES[name], epochs=4, batch_size=6)
    if name == "coco":
        assert recipe.warmup > 0
        recipe = dataclasses.replace(recipe, milestones=(0.5, 0.75), warmup=0.0)  # two steps are not 2 / 3
    settings = dataclasses.replace(config(coco_folder), recipe=recipe, recipe_name=name, run=tmp_path / "run")
    before = prepare(settings).state.model.state_dict()
    result = detection.train(settings)
    assert [row["lr"] for row in result.history] == pytest.approx([recipe.lr * share for share in shares])
    after = result.job.state.model.state_dict()
    changed = {key for key in after if not torch.equal(after[key], before[key])}
    assert not [key for key in changed if "running" in key or "network.layer1" in key]
    assert [key for key in changed if "network.layer3" in key and ".se." in key]


def test_faults_are_named_before_training(coco_folder: Path) -> None:
    path = coco_folder / "annotations" / "instances_train2017.json"
    told = json.loads(path.read_text())
    told["annotations"][0]["bbox"][2] = 0
    told["annotations"][1]["image_id"] = 99
    path.write_text(json.dumps(told))
    (coco_folder / "train2017" / "4.png").unlink()
    job = prepare(config(coco_folder))
    lines = list(job.description())
    assert "faults   2 annotations, left out:" in lines
    assert any("annotation 1: its box" in line and "no area" in line for line in lines)
    assert any("annotation 2: there is no image 99" in line for line in lines)
    assert "missing  1 images without a file:" in lines
    assert any(line.endswith("4.png") for line in lines)
    assert len(job.resolved()["faults"]) == 3
    assert len(job.data.train) == 4, "one has no file, one no box that is left"
    with pytest.raises(DataError, match=r"1 images have no file, such as.*4.png.*--broken_images 0"):
        prepare(config(coco_folder, broken_images=0))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"model": "fasterrcnn_se_resnet51_fpn"}, "Did you mean"),
        ({"data": "digits"}, "these images have no boxes"),
        ({"options": {"widht": 0.25}}, "Did you mean 'width'"),
        ({"options": {"min_size": 0}}, "min_size=0"),
        ({"image_size": 64}, r"--options\.min_size"),
        ({"recipe": {"crop": "resized"}}, "crop='resized'.*images are mirrored, and no more"),
        ({"recipe": {"label_smoothing": 0.1}}, "label_smoothing=0.1"),
        ({"recipe": {"schedule": "plateau"}}, "its test gives no loss"),
        ({"recipe": {"frozen_stages": 6}}, "frozen_stages=6"),
        ({"recipe": {"batch_size": 3, "accumulate": 4}}, "batch_size=3"),
        (
            {"model": "fasterrcnn_timm:resnet10t_fpn", "stages": (2,), "options": {}},
            "of another library",
        ),
        (
            {"model": "fasterrcnn_timm:resnet10t_fpn", "se": {"init": "random"}, "options": {}},
            r"se\.init='random'.*identity",
        ),
    ],
)
def test_what_is_wrong_shows_before_the_run(values: dict[str, Any], words: str, coco_folder: Path) -> None:
    with pytest.raises(OptionError, match=words):
        prepare(config(coco_folder, **values))


def test_it_starts_from_a_classifier_of_any_classes(coco_folder: Path, tmp_path: Path) -> None:
    network = senet.build("se_mobilenet_v1", width=0.25, num_classes=7)
    images = {"channels": 3, "size": 32, "resize": 32, "mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}
    images |= {"interpolation": "bilinear", "squash": False}
    senet.weights.save(network, tmp_path / "trunk.safetensors", header={"preprocessing": images})
    model = prepare(config(coco_folder, weights=str(tmp_path / "trunk.safetensors"))).state.model
    state = model.trunk.network.state_dict()  # type: ignore[union-attr]
    assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items() if key in state)
    assert len(state) == len(network.state_dict()) - 2
    assert model.config.mean == (0.1, 0.2, 0.3)


def test_images_are_normalised_as_the_weights_want_it_also_when_a_run_goes_on(
    coco_folder: Path, tmp_path: Path
) -> None:
    images = {"channels": 3, "size": 32, "resize": 32, "mean": [0.5, 0.5, 0.5], "std": [0.25, 0.5, 0.5]}
    network = senet.build("se_mobilenet_v1", width=0.25, num_classes=7)
    senet.weights.save(network, tmp_path / "trunk.safetensors", header={"preprocessing": images})
    run = config(coco_folder, weights=str(tmp_path / "trunk.safetensors"), run=tmp_path / "run")
    detection.train(dataclasses.replace(run, recipe=dataclasses.replace(run.recipe, epochs=1)))
    (tmp_path / "trunk.safetensors").unlink()
    begun = read_config(tmp_path / "run" / "config.yaml")
    again = detection.train(dataclasses.replace(begun, run=tmp_path / "run"), resume=True)
    model = again.job.state.model
    assert model.rcnn.transform.image_mean == [0.5, 0.5, 0.5]  # type: ignore[union-attr]
    assert detection.load(tmp_path / "run").config.std == (0.25, 0.5, 0.5)
    started = prepare(config(coco_folder, weights=str(tmp_path / "run"))).state.model
    assert started.config.mean == (0.5, 0.5, 0.5)
    # By the same words, as a launcher says them, with weights that are gone.
    same = dataclasses.replace(run, recipe=dataclasses.replace(run.recipe, epochs=1))
    auto = detection.train(same, resume="auto")
    assert auto.job.state.model.config.mean == (0.5, 0.5, 0.5)


def test_a_network_in_place_of_the_named_one_is_not_said_to_be_it(coco_folder: Path) -> None:
    options = {key: value for key, value in OPTIONS.items() if key != "width"}
    job = prepare(config(coco_folder, options=options), backbone=resnet18())
    assert job.header()["detector"]["backbone"]["foreign"] == "torchvision.models.resnet:ResNet"


def test_norms_of_frozen_stages_stay_as_they_are(coco_folder: Path) -> None:
    job = prepare(config(coco_folder, recipe={"frozen_stages": 3}))
    job.train_mode(0)
    trunk: Any = job.state.model.trunk.network  # type: ignore[union-attr]
    norms = {name: module for name, module in trunk.named_modules() if is_batch_norm(module)}
    for name, norm in norms.items():
        assert norm.training == (trunk.stage_of(name) > 3), name
    assert len({norm.training for norm in norms.values()}) == 2


def test_weights_that_are_not_finite_reach_no_file(coco_folder: Path, tmp_path: Path) -> None:
    recipe = {"epochs": 1, "batch_size": 6, "lr": 3e38, "warmup": 0.0}
    with pytest.raises(RunError, match=r"the weights of epoch 1: .* is not finite"):
        detection.train(config(coco_folder, run=tmp_path / "run", recipe=recipe))
    assert not list((tmp_path / "run").rglob("*.safetensors"))


class Norm(nn.BatchNorm2d):
    """One of a user's own."""


@pytest.mark.parametrize(("norm", "affine"), [(Norm, True), (nn.BatchNorm2d, False)])
@pytest.mark.parametrize("frozen", [True, False])
def test_norms_of_other_kinds_are_frozen_and_learn_like_all(
    norm: type[nn.BatchNorm2d], affine: bool, frozen: bool, coco_folder: Path
) -> None:
    network = resnet18(norm_layer=norm)
    for each in network.modules():
        if isinstance(each, norm) and not affine:
            each.weight = each.bias = None  # type: ignore[assignment]
    options = {key: value for key, value in OPTIONS.items() if key != "width"}
    how = config(coco_folder, options=options, recipe={"frozen_norms": frozen, "frozen_stages": 2})
    job = prepare(how, backbone=network)
    job.train_mode(0)
    training = {name: each.training for name, each in network.named_modules() if type(each) is norm}
    # One without parameters, beside layers that learn, is not known to be of a frozen stage.
    learning = ("layer2", "layer3", "layer4", *([] if affine else ["bn1"]))
    wanted = set() if frozen else {name for name in training if name.startswith(learning)}
    assert {name for name, each in training.items() if each} == wanted


def test_norms_that_cannot_share_are_told(coco_folder: Path) -> None:
    options = {key: value for key, value in OPTIONS.items() if key != "width"}
    foreign = config(
        coco_folder, model="fasterrcnn_timm:mobilenetv3_small_050_fpn", options=options, sync_norms=True
    )
    with pytest.raises(OptionError, match=r"batch norms .* are of a kind that cannot share"):
        prepare(foreign, Processes(0, 2))


def test_it_starts_from_a_detector_of_the_same_classes_or_with_a_new_head(
    coco_folder: Path, tmp_path: Path
) -> None:
    first = prepare(config(coco_folder, seed=5))
    header = {**first.header(), "classes": ["red", "green"]}
    senet.weights.save(first.state.model, tmp_path / "w.safetensors", header=header)
    how = {"weights": str(tmp_path / "w.safetensors")}
    with pytest.raises(WeightsError, match="Add --new_head true"):
        prepare(config(coco_folder, **how))
    fresh = prepare(config(coco_folder, **how, new_head=True)).state.model.state_dict()
    state = first.state.model.state_dict()
    changed = {key for key, value in fresh.items() if not torch.equal(value, state[key])}
    assert changed
    assert all("box_predictor" in key for key in changed)
    senet.weights.save(first.state.model, tmp_path / "w.safetensors", header=first.header())
    same = prepare(config(coco_folder, **how)).state.model.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in same.items())


def test_blocks_are_placed_by_the_config(coco_folder: Path) -> None:
    job = prepare(config(coco_folder, se={"reduction": 8}, stages=(4, 5)))
    blocks = [each for each in job.state.model.modules() if isinstance(each, SqueezeExcitation)]
    assert {block.config.reduction for block in blocks} == {8}
    assert len(blocks) == 8
    options = {key: value for key, value in OPTIONS.items() if key != "width"}
    foreign = {"model": "fasterrcnn_timm:resnet10t_fpn", "options": options}
    blocks = [
        each
        for each in prepare(config(coco_folder, **foreign, se={"reduction": 4})).state.model.modules()
        if isinstance(each, SqueezeExcitation)
    ]
    assert len(blocks) == 4
    plain = prepare(config(coco_folder, **foreign)).state.model.modules()
    assert not any(isinstance(each, SqueezeExcitation) for each in plain)


def test_its_gates_can_be_recorded(coco_folder: Path) -> None:
    job = prepare(config(coco_folder))
    with senet.record_gates(job.state.tested) as gates:
        job.evaluate()
    assert len(gates) == 13
