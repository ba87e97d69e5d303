"""Our networks in timm's registry, for its scripts and the libraries that are built on it.

A network made by ``timm.create_model("senet_se_resnet50", ...)`` is ours, with our checkpoint keys, and
answers what timm asks of one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from torch import Tensor, nn

from senet.errors import MissingExtraError, OptionError, check_choice, require
from senet.models.building import build
from senet.models.network import Network
from senet.models.registry import info, list_models
from senet.weights.published import PublishedWeights, published_weights

PREFIX = "senet_"

# timm looks here for what it shall know of a name before the network is made.
default_cfgs: dict[str, dict[str, Any]] = {}


def register_with_timm() -> list[str]:
    """Registers each name of ``list_models()`` with timm as ``senet_NAME``; a second time changes nothing.

    Of timm's keywords they take ``num_classes``, ``in_chans``, ``drop_rate``, ``features_only`` with
    ``out_indices``, and ``pretrained``, beside those of ``senet.build``; any other is an error.

    Returns:
        The names as timm has them.

    Raises:
        MissingExtraError: timm is not installed.
    """
    try:
        from timm.models import is_model, register_model
    except ImportError as error:
        raise MissingExtraError.of("timm", extra="timm", need="register_with_timm()") from error
    for name in list_models():
        if not is_model(PREFIX + name):
            default_cfgs[PREFIX + name] = _data_config(name)
            register_model(_entry(name))
    return [PREFIX + name for name in list_models()]


def _data_config(name: str) -> dict[str, Any]:
    """The images that a network is for, in timm's words: those of its published weights, if it has any."""
    known, weights = info(name), _fetchable(name)
    cfg: dict[str, Any] = {"input_size": known.input_size, "num_classes": known.classes}
    if weights is not None:
        images = weights.preprocessing
        return cfg | {
            "input_size": (images["channels"], images["size"], images["size"]),
            "crop_pct": images["size"] / images["resize"],
            "mean": tuple(images["mean"]),
            "std": tuple(images["std"]),
            "interpolation": images.get("interpolation", "bilinear"),
        }
    # As senet itself: small images are not cropped, others resized by 256/224.
    return cfg | {"crop_pct": 0.875 if known.input_size[1] > 64 else 1.0, "interpolation": "bilinear"}


def _fetchable(name: str) -> PublishedWeights | None:
    """The first published weights of a network that need nobody's hand to fetch."""
    return next((weights for weights in published_weights(name) if weights.where is not None), None)


def _entry(name: str) -> Callable[..., nn.Module]:
    """What timm calls to make the network."""

    def create(
        pretrained: bool = False,
        *,
        pretrained_cfg: Any = None,
        pretrained_cfg_overlay: dict[str, Any] | None = None,
        cache_dir: Any = None,
        num_classes: int | None = None,
        in_chans: int = 3,
        drop_rate: float | None = None,
        features_only: bool = False,
        out_indices: int | Sequence[int] | None = None,
        **options: Any,
    ) -> nn.Module:
        asked = f"timm.create_model({PREFIX + name!r})"
        if cache_dir is not None:
            raise OptionError(f"{asked}: cache_dir", "it is not used", do="Set HF_HUB_CACHE and TORCH_HOME.")
        # timm's scripts always give a rate: none is no question to a network without dropout.
        if drop_rate is not None and (drop_rate or "dropout" in info(name).options):
            options["dropout"] = drop_rate
        from timm.models import resolve_pretrained_cfg

        cfg = resolve_pretrained_cfg(PREFIX + name, pretrained_cfg, pretrained_cfg_overlay)
        classes = info(name).classes if num_classes is None else num_classes
        if pretrained:
            model = build(name, weights=_weights(asked, name, cfg), in_channels=in_chans, **options)
        else:
            # timm's 0 is a network without classifier; ours is made with one, which then goes.
            model = build(name, num_classes=classes or 1, in_channels=in_chans, **options)
        model.pretrained_cfg = model.default_cfg = _for_channels(cfg, in_chans).to_dict()
        if features_only:
            return _as_pyramid(model, asked, out_indices)
        if out_indices is not None:
            raise OptionError(f"{asked}: out_indices", "there is one output", do="Give features_only=True.")
        return _as_classifier(model, classes)

    create.__name__ = create.__qualname__ = PREFIX + name
    create.__doc__ = f"The network {name} of senet."
    return create


def _weights(asked: str, name: str, cfg: Any) -> str:
    """The published weights of a network; OptionError if it has none, or if other ones are meant."""
    weights = _fetchable(name)
    if cfg.has_weights or cfg.state_dict:
        raise OptionError(
            f"{asked}: pretrained_cfg",
            found="it names weights of its own",
            do="Give them as checkpoint_path, or to senet.build(weights=...).",
        )
    if weights is None:
        raise OptionError(
            f"{asked}: pretrained=True",
            found=f"no weights of {name} are published where they can be fetched",
            allowed=", ".join(PREFIX + other for other in list_models() if _fetchable(other)),
            do="Leave out pretrained, or give checkpoint_path.",
        )
    return weights.name


def _for_channels(cfg: Any, channels: int) -> Any:
    """Timm's config for images of so many channels, each normalised by the mean of what it has."""
    if channels == cfg.input_size[0]:
        return cfg
    mean, std = ((sum(values) / len(values),) * channels for values in (cfg.mean, cfg.std))
    return dataclasses.replace(cfg, input_size=(channels, *cfg.input_size[1:]), mean=mean, std=std)


class _TimmNetwork(Network):
    """What timm's scripts and libraries ask of a network; the class of ours beside it does the rest."""

    def __reduce__(self) -> tuple[Any, ...]:
        # The class is made, so that pickle cannot find it by name.
        return _empty, type(self).__bases__, self.__dict__


class _Classifier(_TimmNetwork):
    classifier_name: str
    num_features: int
    head_hidden_size: int

    @property
    def num_classes(self) -> int:
        """0 without classifier."""
        return getattr(self.get_classifier(), "out_features", 0)

    def get_classifier(self) -> nn.Module:
        """The last linear layer."""
        return self.get_submodule(self.classifier_name)

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Puts a fresh classifier into the place of the last one.

        Args:
            num_classes: of it; 0 puts none there, and the network gives the features that it would read.
            global_pool: "avg", or None, which is the same.
        """
        check_choice(f"global_pool={global_pool!r}", global_pool or "avg", ("avg",))
        whole = isinstance(num_classes, int) and num_classes >= 0
        require("num_classes", num_classes, whole, "an integer of at least 0")
        weight = next(self.parameters())
        new: nn.Module = nn.Identity()
        if num_classes:
            new = nn.Linear(self.head_hidden_size, num_classes, device=weight.device, dtype=weight.dtype)
        self.set_submodule(self.classifier_name, new)
        if num_classes == 0:
            # No config builds this: what is saved of it must not say so.
            vars(self).pop("config", None)
        elif hasattr(self, "config"):
            self.config = dataclasses.replace(self.config, num_classes=num_classes)

    def forward_features(self, x: Tensor) -> Tensor:
        """Images (N, in_channels, H, W) to the last map."""
        return self.pyramid(x)[-1]

    def forward_head(self, x: Tensor) -> Tensor:
        """The last map to what ``forward`` gives."""
        return self.head(x)


class _Pyramid(_TimmNetwork):
    feature_info: Any

    def forward(self, x: Tensor) -> list[Tensor]:  # type: ignore[override]
        """Images (N, in_channels, H, W) to a map of each level that was asked for."""
        maps = self.pyramid(x)
        return [maps[index] for index in self.feature_info.out_indices]


def _as_classifier(model: Any, classes: int) -> nn.Module:
    of: type[Network] = type(model)
    linear = [(name, module) for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    # The head's modules come after all others, the classifier last.
    model.classifier_name, last = linear[-1]
    model.head_hidden_size = last.in_features
    model.num_features = model.pyramid_info[-1].channels
    model.__class__ = _class_of(_Classifier, of)
    if classes != last.out_features:
        model.reset_classifier(classes)
    made: nn.Module = model
    return made


def _as_pyramid(model: Any, asked: str, out_indices: int | Sequence[int] | None) -> nn.Module:
    from timm.models import FeatureInfo

    of: type[Network] = type(model)
    levels = [
        {"num_chs": level.channels, "reduction": level.stride, "module": level.modules[-1]}
        for level in model.pyramid_info
    ]
    if out_indices is None:
        out_indices = range(len(levels))
    # A number means that many, the last ones.
    taken = tuple(range(-out_indices, 0)) if isinstance(out_indices, int) else tuple(out_indices)
    if not all(-len(levels) <= index < len(levels) for index in taken):
        raise OptionError(
            f"{asked}: out_indices={taken}",
            found=f"there are {len(levels)} maps",
            allowed=f"0 to {len(levels) - 1}",
        )
    model.feature_info = FeatureInfo(levels, taken)
    running = tuple(f"{module}." for level in model.pyramid_info for module in level.modules)
    for name, _ in list(model.named_children()):
        # The head: without it, no parameter is left that gets no gradient.
        if not any(module.startswith(f"{name}.") for module in running):
            delattr(model, name)
    vars(model).pop("config")
    model.__class__ = _class_of(_Pyramid, of)
    made: nn.Module = model
    return made


@cache
def _class_of(role: type[_TimmNetwork], network: type[Network]) -> type[_TimmNetwork]:
    return type(network.__name__, (role, network), {"__module__": __name__})


def _empty(role: type[_TimmNetwork], network: type[Network]) -> _TimmNetwork:
    made = _class_of(role, network)
    return made.__new__(made)
