"""Whatever a recipe says happens in a run of it: each on a few images in their real layout."""

import dataclasses
import io
import json
import math
import pickle
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tests.conftest import write_shard
from tests.data.test_downloads import batch, md5
from tests.data.test_places365 import lay_out
from torch import Tensor
from torch.nn import functional
from torchvision import datasets

import senet
from senet import weights
from senet.cli import main
from senet.data import open_data
from senet.data.augmentation import Augmentation, training_transform
from senet.data.folder import ImageFiles
from senet.data.stream import Batch, Images, SampleKey
from senet.training.classification import Classification
from senet.training.config import Recipe, TrainConfig, read_config
from senet.training.loop import TrainResult, train
from senet.training.recipes import RECIPES


@dataclass(frozen=True)
class Small:
    """A small run of a recipe: the rate of each step, as a share of the recipe's, and all else it needs."""

    data: str
    model: str
    rates: str
    epochs: int = 1
    image_size: int | None = None
    options: dict[str, Any] = field(default_factory=dict)


_MOBILE: dict[str, Any] = {"model": "se_mobilenet_v1", "options": {"width": 0.25}}
# Where it falls, the test loss decides.
_PLATEAU = "plateau"

# Four steps, or one an epoch. A network that another stands in for would take seconds a step.
SMALL = {
    "imagenet": Small("imagenet", "se_resnet18", "1 1 .1 .01", image_size=64),
    "bn_inception": Small("imagenet shards", "se_bn_inception", "1 1 .1 .01", image_size=64),
    "ablation": Small("imagenet", rates=_PLATEAU, epochs=14, image_size=64, **_MOBILE),
    "released": Small("imagenet", rates="1 1 .1 .01", image_size=64, **_MOBILE),
    "senet154": Small("imagenet", rates="1 1 .1 .1 .01 .01", epochs=6, image_size=64, **_MOBILE),
    "mobile": Small("imagenet", rates=_PLATEAU, epochs=14, image_size=64, **_MOBILE),
    "places365": Small("places365", rates="1 1 .1 .01", **_MOBILE),
    "places365_balanced": Small("places365 easy", rates="1 1 .1 .01", **_MOBILE),
    "modern": Small("imagenet", rates="1 .861 .507 .149", **_MOBILE),
    "cifar": Small("cifar10", "se_resnet20", "1 1 .1 .01"),
    "cifar_deep": Small("cifar10", "se_resnet110", ".1 1 .1 .01"),
    "preresnet": Small("cifar100", "se_preresnet110", ".1 1 .1 .01"),
    "wrn": Small("cifar100", "se_resnet20", "1 1 .2 .04"),
    "shakeshake": Small("cifar10", "se_resnet20", "1 .854 .5 .146"),
    "shakeeven": Small("cifar100", "se_resnet20", "1 .854 .5 .146"),
    "digits": Small("digits", "se_resnet20", "1 .895 .541 .161"),
}


@dataclass
class Ran:
    """A run, and what was seen while it went on.

    Args:
        config: what decided it.
        result: what came out.
        epoch: the keys of the first epoch's images, step by step.
        batches: what each step got, and the network's input and target that it became.
        rates: of each step.
        weights: the tensors of last.safetensors after each epoch.
    """

    config: TrainConfig
    result: TrainResult[Any, Any]
    epoch: list[list[SampleKey]]
    batches: list[tuple[Batch, Tensor, Tensor]]
    rates: list[float]
    weights: list[dict[str, Tensor]]

    @property
    def recipe(self) -> Recipe:
        return self.config.recipe

    def images(self, recipe: Recipe) -> list[Tensor]:
        """The images of the first epoch as another recipe augments them."""
        job = self.result.job
        transform = training_transform(job.preprocessing, recipe)
        prepared = Images(job.data.train, transform, self.config.seed)
        found = [prepared[key].image for keys in self.epoch for key in keys]
        return [image for image in found if image is not None]


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    root = tmp_path_factory.mktemp("data")
    _imagenet(root / "imagenet")
    _imagenet_shards(root / "imagenet", root / "shards")
    lay_out(root / "places", _scene)
    _easy(root / "places", root / "easy")
    with pytest.MonkeyPatch.context() as patch:
        _cifar10(root, patch)
        _cifar100(root, patch)
        yield {
            "imagenet": f"folder:{root / 'imagenet'}",
            "imagenet shards": f"shards:{root / 'shards'}",
            "places365": f"folder:{root / 'places'}",
            "places365 easy": f"folder:{root / 'easy'}",
            "cifar10": f"cifar10:{root}",
            "cifar100": f"cifar100:{root}",
            "digits": "digits",
        }


@pytest.fixture(scope="module", params=SMALL)
def ran(
    request: pytest.FixtureRequest, places: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Ran]:
    small, recipe = SMALL[request.param], RECIPES[request.param]
    steps = 4 if small.epochs == 1 else 1
    images = {"digits": 1437, "cifar10": 20, "cifar100": 20}.get(small.data, 24)
    config = TrainConfig(
        model=small.model,
        data=places[small.data],
        recipe=dataclasses.replace(recipe, epochs=small.epochs, batch_size=images // steps),
        recipe_name=request.param,
        options=small.options,
        image_size=small.image_size,
        seed=1,
        run=tmp_path_factory.mktemp("runs") / "run",
    )
    batches, rates, epochs = [], [], []
    inputs = Classification.inputs

    def noted(self: Classification, batch: Batch, part: int) -> tuple[Tensor, Tensor]:
        x, target = inputs(self, batch, part)
        batches.append((batch, x, target))
        rates.append(self.state.optimizer.param_groups[0]["lr"])
        return x, target

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Classification, "inputs", noted)
        result = train(config, watch=[lambda path, _: epochs.append(weights.read(path)[1])])
    first = [keys for keys in result.job.order() if keys[0].epoch == 0]
    yield Ran(config, result, first, batches, rates, epochs)
    shutil.rmtree(result.run)


def test_every_recipe_has_its_small_run() -> None:
    # Those of detectors run in tests/detection/test_job.py.
    assert SMALL.keys() | {"coco", "coco_conference"} == RECIPES.keys()


def test_all_steps_are_done_at_the_recipes_rates(ran: Ran) -> None:
    rates = SMALL[ran.config.recipe_name].rates
    shares = _after_plateaus(ran) if rates == _PLATEAU else [float(share) for share in rates.split()]
    assert [rate / ran.recipe.lr for rate in ran.rates] == pytest.approx(shares, abs=6e-4)
    history = ran.result.history
    assert (len(history), history[-1]["step"]) == (ran.recipe.epochs, len(shares))
    assert all(math.isfinite(row[loss]) for row in history for loss in ("train_loss", "test_loss"))
    assert {(row["skipped"], row["broken"]) for row in history} == {(0, 0)}


def _after_plateaus(ran: Ran) -> list[float]:
    """The test loss soon rises, as the test images are labelled wrongly."""
    shares, lowest, waited = [1.0], math.inf, 0
    for row in ran.result.history[:-1]:
        waited = 0 if row["test_loss"] < lowest else waited + 1
        lowest = min(lowest, row["test_loss"])
        falls = waited == ran.recipe.patience
        waited *= not falls
        shares.append(shares[-1] * 0.1**falls)
    assert shares[-1] < 1, "there was a plateau"
    return shares


def test_its_optimizer_is_the_recipes(ran: Ran) -> None:
    recipe = ran.recipe
    found = [
        (group["momentum"], group["nesterov"], group["weight_decay"])
        for group in ran.result.job.state.optimizer.param_groups
    ]
    decays = [recipe.weight_decay, recipe.weight_decay * recipe.decay_all]
    assert found == [(recipe.momentum, recipe.nesterov, decay) for decay in decays]


def test_its_configuration_reads_back(ran: Ran) -> None:
    found = read_config(ran.result.run / "config.yaml")
    assert found == dataclasses.replace(ran.config, run=None)
    whole = RECIPES[found.recipe_name]
    assert dataclasses.replace(found.recipe, epochs=whole.epochs, batch_size=whole.batch_size) == whole


def test_an_epoch_shows_the_images_as_often_as_the_recipe_says(ran: Ran) -> None:
    source, recipe = ran.result.job.data.train, ran.recipe
    labels = [[int(source.labels[key.image]) for key in keys] for keys in ran.epoch]
    shown = [batch.labels.tolist() for batch, _, _ in ran.batches]
    assert shown[: len(ran.epoch)] == labels
    numbers = [key.image for keys in ran.epoch for key in keys]
    if recipe.balanced:
        assert all(np.bincount(each).tolist() == [2, 2, 2] for each in shown)
        assert len(set(np.bincount(source.labels))) == 3, "though the classes have unequal shares"
    else:
        # Digits: 1,437 are no multiple of four.
        assert {numbers.count(number) for number in numbers} == {recipe.repeats}
        assert len(numbers) == len(source) - len(source) % len(ran.epoch)


def test_each_augmentation_of_the_recipe_shows(ran: Ran) -> None:
    """Without any one of them the images that it trained on would have been others."""
    seen = [image for batch, _, _ in ran.batches[: len(ran.epoch)] for image in batch.images]

    def same(recipe: Recipe) -> bool:
        return all(torch.equal(*pair) for pair in zip(ran.images(recipe), seen, strict=True))

    assert same(ran.recipe)
    defaults: dict[str, Any] = {each.name: each.default for each in dataclasses.fields(Augmentation)}
    for name in defaults.keys() - {"mixup", "cutmix"}:
        if getattr(ran.recipe, name) != defaults[name]:
            assert not same(dataclasses.replace(ran.recipe, **{name: defaults[name]})), name
    side = ran.recipe.train_size or ran.result.job.preprocessing.size
    assert {image.shape[1:] for image in seen} == {(side, side)}


def test_images_and_labels_are_mixed_where_the_recipe_says_so(ran: Ran) -> None:
    normalise = ran.result.job.preprocessing.normalise
    plain = [torch.equal(x, normalise(batch.images)) for batch, x, _ in ran.batches]
    classes = len(ran.result.job.data.classes)
    if ran.recipe.mixup or ran.recipe.cutmix:
        targets = torch.cat([target for _, _, target in ran.batches])
        assert targets.shape[1] == classes
        assert targets.sum(1).allclose(torch.ones(len(targets)))
        assert (targets > 0).sum(1).max() == 2
        assert not all(plain)
    else:
        assert all(torch.equal(target, batch.labels) for batch, _, target in ran.batches)
        assert all(plain)


def test_norms_stay_as_they_are_in_the_frozen_epochs(ran: Ran) -> None:
    norms = {key.removesuffix("running_mean") for key in ran.weights[0] if key.endswith("running_mean")}
    changed = [
        {key for key in after if not torch.equal(before[key], after[key])}
        for before, after in zip(ran.weights, ran.weights[1:], strict=False)
    ]
    first_frozen = ran.recipe.epochs - ran.recipe.freeze_norms
    for epoch, keys in enumerate(changed, start=1):
        of_norms = {key for key in keys if key.rpartition(".")[0] + "." in norms}
        assert bool(of_norms) == (epoch < first_frozen)
        assert keys - of_norms
    assert all(ran.weights[0][f"{norm}running_mean"].any() for norm in norms), (
        "before, they follow the images"
    )


def test_what_is_tested_and_saved_is_the_average_where_the_recipe_has_one(ran: Ran) -> None:
    state, saved = ran.result.job.state, ran.weights[-1]
    assert (state.average is not None) == (ran.recipe.ema > 0)
    assert all(torch.equal(saved[key], tensor) for key, tensor in state.tested.state_dict().items())
    trained = all(torch.equal(saved[key], tensor) for key, tensor in state.model.state_dict().items())
    assert trained == (ran.recipe.ema == 0)


def test_test_images_are_cut_as_the_recipe_says(ran: Ran) -> None:
    """Against Pillow alone."""
    job, recipe = ran.result.job, ran.recipe
    size = job.preprocessing.size
    small = job.data.name.startswith(("cifar", "digits"))
    edge = recipe.resize or (size if small else round(size * 8 / 7))
    tested = torch.cat([batch.images for batch in job.test_batches()])
    assert len(tested) == len(job.data.test)
    for index in range(3):
        image = job.data.test.read(index)[0]
        shorter = min(image.size)
        new = (edge, edge) if recipe.squash else tuple(int(edge * side / shorter) for side in image.size)
        left, top = (round((side - size) / 2) for side in new)
        cut = image.resize(new, Image.Resampling.BILINEAR).crop((left, top, left + size, top + size))
        pixels = np.asarray(cut).reshape(size, size, -1).transpose(2, 0, 1)
        assert np.array_equal(tested[index].numpy(), pixels)


def test_a_run_on_places365_is_evaluated_on_squashed_images(
    places: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the command line alone, as the run says of itself; against Pillow."""
    run, data = tmp_path / "run", places["places365"]
    words = "train se_resnet20 --image_size 224 --recipe places365 --epochs 1 --batch_size 12 --lr 0.01"
    assert main([*words.split(), "--data", data, "--run", str(run)]) == 0
    assert "3 to test on (val_256/, by places365_val.txt), 3 classes" in capsys.readouterr().out
    assert main(["eval", str(run), "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)

    root = Path(data.partition(":")[2])
    listed = [line.split() for line in (root / "places365_val.txt").read_text().splitlines()]
    images = [Image.open(root / "val_256" / name) for name, _ in listed]
    target = torch.tensor([int(label) for _, label in listed])
    mean, std = (torch.tensor(each)[:, None, None] for each in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    model = senet.load(run).eval()

    def scores(sizes: list[list[int]]) -> Tensor:
        crops = []
        for image, size in zip(images, sizes, strict=True):
            left, top = (round((side - 224) / 2) for side in size)
            cut = image.resize((size[0], size[1]), Image.Resampling.BILINEAR).crop(
                (left, top, left + 224, top + 224)
            )
            crops.append((torch.tensor(np.asarray(cut)).permute(2, 0, 1) / 255 - mean) / std)
        with torch.no_grad():
            rows: Tensor = model(torch.stack(crops))
        return rows

    squashed = scores([[256, 256]] * 3)
    assert (found["images"], found["correct1"]) == (3, int((squashed.argmax(1) == target).sum()))
    assert found["loss"] == pytest.approx(float(functional.cross_entropy(squashed, target)), rel=1e-5)
    kept = scores([[256 * side // min(image.size) for side in image.size] for image in images])
    assert found["loss"] != pytest.approx(float(functional.cross_entropy(kept, target)), rel=1e-3)


def _picture(seed: int, label: int, size: tuple[int, int]) -> Image.Image:
    """A smooth image whose class is in its colour."""
    pixels = np.random.default_rng(seed).integers(0, 128, (8, 8, 3), dtype=np.uint8)
    pixels[..., label] += 128
    return Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)


def _write(path: Path, image: Image.Image, kind: str = "JPEG") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, kind)


def _imagenet(root: Path) -> None:
    """As unpacked: a folder a synset, all sizes, one image of CMYK and one PNG that is called JPEG.

    The test images have the colour of the next class: the more is learnt, the higher is their loss.
    """
    sizes = [(500, 375), (375, 500), (250, 180), (96, 75)]
    for label, synset in enumerate(("n01440764", "n01739381", "n02105855")):
        for number in range(8):
            image, kind = _picture(10 * label + number, label, sizes[number % 4]), "JPEG"
            if (synset, number) == ("n01739381", 0):
                image = image.convert("CMYK")
            if (synset, number) == ("n02105855", 0):
                kind = "PNG"
            _write(root / "train" / synset / f"{synset}_{1309 + number}.JPEG", image, kind)
        for number in range(2):
            image = _picture(100 + 10 * label + number, (label + 1) % 3, sizes[number])
            _write(root / "val" / synset / f"ILSVRC2012_val_{10 * label + number:08}.JPEG", image)


def _imagenet_shards(folder: Path, shards: Path) -> None:
    """The same files in two shards to train on and one to test on."""
    shards.mkdir()
    classes = sorted(path.name for path in (folder / "train").iterdir())
    (shards / "classes.txt").write_text("".join(f"{name}\n" for name in classes))
    train, val = (sorted((folder / split).rglob("*.JPEG")) for split in ("train", "val"))
    for name, paths in (("train-000000", train[::2]), ("train-000001", train[1::2]), ("val-000000", val)):
        files = {}
        for path in paths:
            files[f"{path.stem}.jpeg"] = path.read_bytes()
            files[f"{path.stem}.cls"] = str(classes.index(path.parent.name)).encode()
        write_shard(shards / f"imagenet-{name}.tar", files)


def _scene(label: int, number: int) -> bytes:
    """Of Places365: squares of 256 to train on (as in data_256), other shapes to test on."""
    shapes = [(683, 512), (256, 256), (512, 768)]
    file = io.BytesIO()
    _picture(20 * label + number, label, (256, 256) if number < 100 else shapes[label]).save(file, "JPEG")
    return file.getvalue()


def _easy(places: Path, root: Path) -> None:
    """The same images in its easy format: a folder a class, whose name is no path."""
    data = open_data(f"folder:{places}")
    for split, source in (("train", data.train), ("val", data.test)):
        assert isinstance(source, ImageFiles)
        for index, label in enumerate(source.labels):
            name = source.names[index]
            to = root / split / data.classes[label][2:].replace("/", "-") / Path(name).name
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source.folder / name, to)


def _cifar10(root: Path, patch: pytest.MonkeyPatch) -> None:
    """The pickled batches of five times four images, and of three."""
    folder, cifar = root / "cifar-10-batches-py", datasets.CIFAR10
    files = [batch(folder / f"data_batch_{n}", "labels", [n, n + 1, 0, 9], n) for n in range(1, 6)]
    patch.setattr(cifar, "train_list", files)
    patch.setattr(cifar, "test_list", [batch(folder / "test_batch", "labels", [9, 0, 3], 6)])
    names = "airplane automobile bird cat deer dog frog horse ship truck".split()
    _meta(folder / "batches.meta", cifar, {"label_names": names}, patch)


def _cifar100(root: Path, patch: pytest.MonkeyPatch) -> None:
    folder, cifar = root / "cifar-100-python", datasets.CIFAR100
    labels = list(range(0, 100, 5))
    patch.setattr(cifar, "train_list", [batch(folder / "train", "fine_labels", labels, 7)])
    patch.setattr(cifar, "test_list", [batch(folder / "test", "fine_labels", [99, 0, 5], 8)])
    _meta(folder / "meta", cifar, {"fine_label_names": [f"fine {n}" for n in range(100)]}, patch)


def _meta(path: Path, kind: Any, names: dict[str, list[str]], patch: pytest.MonkeyPatch) -> None:
    path.write_bytes(pickle.dumps(names, protocol=2))
    patch.setattr(kind, "meta", {**kind.meta, "md5": md5(path)})
