"""What is published beside weights: the model card, and the config that the hub counts downloads by.

Both say what the file's header says and what the caller measured, and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

import yaml

from senet import __version__
from senet.errors import OptionError
from senet.tables import Table

_MEASURED = ("data", "images", "correct1", "top1", "top5")

_CITATION = """\
@article{hu2020squeeze,
  title   = {Squeeze-and-Excitation Networks},
  author  = {Hu, Jie and Shen, Li and Albanie, Samuel and Sun, Gang and Wu, Enhua},
  journal = {IEEE Transactions on Pattern Analysis and Machine Intelligence},
  volume  = {42},
  number  = {8},
  pages   = {2011--2023},
  year    = {2020},
  doi     = {10.1109/TPAMI.2019.2913372}
}"""

_OF_A_NAME = """\
import senet

model = senet.load("hf:{repo}")  # with @COMMIT, always this file
"""

_OF_NO_NAME = """\
import senet

model = ...  # the network that was saved: built as it was, then senet.insert(model, ...)
senet.weights.load(model, "hf:{repo}")
"""


def config(header: Mapping[str, Any]) -> dict[str, Any]:
    """The content of ``config.json``: of the header, what rebuilds the network and prepares its images."""
    known = {
        key: header[key] for key in ("network", "preprocessing", "classes", "class_order") if key in header
    }
    return {"library_name": "senet", "senet_version": __version__, **known}


def text(
    repo: str,
    header: Mapping[str, Any],
    parameters: int,
    *,
    licence: str | None = None,
    evaluations: Sequence[Mapping[str, Any]] = (),
) -> str:
    """The model card, a ``README.md`` with the front matter that the hub reads.

    Args:
        repo: ``ORG/NAME``.
        header: of the weights file.
        parameters: how many there are to learn.
        licence: of the weights, as the hub writes it; None states none.
        evaluations: what was measured, as ``senet eval --json`` prints it.

    Raises:
        OptionError: an evaluation lacks a field.
    """
    for evaluation in evaluations:
        missing = [key for key in _MEASURED if key not in evaluation]
        if missing:
            raise OptionError(
                f"weights.push(model, {repo!r}, evaluations=...)",
                found=f"one has no {', '.join(missing)}",
                allowed="what `senet eval --json` prints",
            )
    network = header.get("network")
    name = network["name"] if network else repo.split("/")[1]
    measured = [_measurement(evaluation) for evaluation in evaluations]
    front = yaml.safe_dump(_front(name, licence, measured), sort_keys=False, allow_unicode=True)
    facts = [f"- **{key}**: {value}" for key, value in _facts(header, parameters, licence).items()]
    use = (_OF_A_NAME if network else _OF_NO_NAME).format(repo=repo)
    parts = [
        f"---\n{front}---\n\n# {name}",
        "Weights for `senet`, Squeeze-and-Excitation for PyTorch.",
        "\n".join(facts),
        f"## Use\n\n```python\n{use}```",
        "## Measured\n",
        Table(measured).to_markdown()
        if measured
        else "Nothing was measured when these weights were published.",
        f"## Cite\n\nThe paper that Squeeze-and-Excitation is from:\n\n```bibtex\n{_CITATION}\n```",
    ]
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def without_place(data: str) -> str:
    """A data set's name, of a folder its name only: where it lies is nobody's business."""
    kind, colon, place = data.partition(":")
    return f"{kind}{colon}{PurePath(place).name}"


def _measurement(evaluation: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "data": without_place(str(evaluation["data"])),
        "images": evaluation["images"],
        "right first": evaluation["correct1"],
        "top-1 %": float(evaluation["top1"]),
        "top-5 %": float(evaluation["top5"]),
        "loss": evaluation.get("loss"),
    }


def _front(name: str, licence: str | None, measured: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The card's metadata, as the hub's specification of model cards names it."""
    front: dict[str, Any] = {} if licence is None else {"license": licence}
    front |= {
        "library_name": "senet",
        "pipeline_tag": "image-classification",
        "tags": ["image-classification", "squeeze-and-excitation", "senet"],
    }
    if measured:
        results = [
            {
                "task": {"type": "image-classification"},
                "dataset": {"name": row["data"], "type": row["data"]},
                "metrics": [
                    {"type": "accuracy", "name": "top-1 %", "value": row["top-1 %"]},
                    {"type": "accuracy", "name": "top-5 %", "value": row["top-5 %"]},
                ],
            }
            for row in measured
        ]
        front["model-index"] = [{"name": name, "results": results}]
    return front


def _facts(header: Mapping[str, Any], parameters: int, licence: str | None) -> dict[str, str]:
    network, preprocessing, classes = (header.get(key) for key in ("network", "preprocessing", "classes"))
    facts = {"parameters": f"{parameters:,}"}
    if network:
        facts["network"] = _listed({key: value for key, value in network.items() if key != "se"})
        facts["SE blocks"] = _listed(network["se"]) if network["se"] else "none"
    else:
        facts["network"] = "not one that senet builds by name: SE was inserted into it, or it is your own"
    facts["preprocessing"] = _listed(preprocessing) if preprocessing else "not recorded in the file"
    facts["classes"] = f"{len(classes):,}, in config.json" if classes else "not recorded in the file"
    facts["licence"] = licence or "not stated"
    facts["senet"] = __version__
    return facts


def _listed(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in values.items() if value not in (None, {}))
