"""Weights that live elsewhere: on the Hugging Face hub, and at URLs whose name carries their hash.

What was fetched once is read from the cache: the hub's own, and torch.hub's for URLs.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import re
import shutil
import tempfile
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import torch
from torch import Tensor, nn
from tqdm import tqdm

from senet import __version__
from senet.errors import MissingExtraError, OptionError, SenetError, WeightsError
from senet.files import replacing
from senet.weights.card import config, text, without_place
from senet.weights.store import LAST, file_of, header_of, read_safetensors, state_of, write

FORM = "hf:ORG/NAME, hf:ORG/NAME@REV or hf:ORG/NAME/path/to/FILE@REV"

# Where a library puts the weights of a repository that has one network; in order of preference.
_STANDARD = ("model.safetensors", "pytorch_model.bin")
_CONFIG = "config.json"

_NOT_LEARNT = ("running_mean", "running_var", "num_batches_tracked", "one_at_zero")

_REPO = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)
_NAME = re.compile(rf"hf:(?P<repo>{_REPO.pattern})(?:/(?P<file>[^@]+))?(?:@(?P<revision>.+))?", re.ASCII)

# torch.hub's convention: a name ends in the first hexadecimal digits of the file's SHA-256.
_HASHED = re.compile(r"-(?P<prefix>[0-9a-f]{8,64})\.\w+")

_SECONDS_OF_SILENCE = 30
_LISTED = 20


@dataclass(frozen=True)
class Located:
    """A weights file on this machine.

    Args:
        name: as it was asked for.
        path: of the file, in a cache: not to be written to.
        config: the repository's ``config.json``, {} if it has none.
    """

    name: str
    path: Path
    config: Mapping[str, Any]


def download(name: str) -> Located:
    """A file of the Hugging Face hub, from its cache where it is there.

    The hub's variables hold: ``HF_HUB_OFFLINE``, ``HF_TOKEN``, ``HF_ENDPOINT``, ``HF_HOME``. Without network
    the cache serves. Weights and config are of one commit, even while a branch moves.

    Args:
        name: ``hf:ORG/NAME`` (``model.safetensors``, else ``pytorch_model.bin``), with ``/path/to/FILE`` for
            another file, with ``@REV`` for a branch, tag or commit.

    Raises:
        MissingExtraError: huggingface_hub is not installed.
        OptionError: the name is malformed.
        WeightsError: there is no such thing, or it cannot be fetched, or its config is damaged.
    """
    asked = f"weights {name!r}"
    match = _NAME.fullmatch(name)
    if match is None or any(part in ("", ".", "..") for part in name.split("@")[0].split("/")):
        raise OptionError(asked, "this is no name on the hub", FORM)
    repo, file, revision = match.group("repo", "file", "revision")
    with _explained(asked, repo):
        api = _api(asked)
        path = _fetched(api, asked, repo, (file,) if file else _STANDARD, revision)
        # The cache keeps a file at snapshots/COMMIT/path/to/FILE.
        commit = path.parents[file.count("/") if file else 0].name
        return Located(name, path, _config(api, asked, repo, commit))


def download_url(url: str) -> Located:
    """A file at a URL like ``https://.../se_resnet50-ce0d4300.pth``, from torch.hub's cache once it is there.

    The hash in its name is checked, of a cached file too: a damaged one is fetched again.

    Raises:
        OptionError: the URL is not https, or its name has no hash.
        WeightsError: the file cannot be fetched, or has another hash.
    """
    asked = f"weights {url!r}"
    name = PurePosixPath(urlsplit(url).path).name
    hashed = _HASHED.search(name)
    if not _is_safe(url) or hashed is None:
        raise OptionError(
            asked,
            found="this URL is not checked by anything",
            allowed="https, and a name that ends in the hash of the file, such as resnet50-0676ba61.pth",
            do="Fetch the file yourself and name its path.",
        )
    path = Path(torch.hub.get_dir(), "checkpoints", name)
    prefix = hashed["prefix"]
    try:
        if path.is_file() and _sha256(path).startswith(prefix):
            return Located(url, path, {})
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            _fetch(url, temporary)
            digest = _sha256(temporary)
            if not digest.startswith(prefix):
                raise WeightsError(
                    asked,
                    found=f"{temporary.stat().st_size:,} bytes came, whose SHA-256 starts with {digest[:8]}",
                    allowed=f"a file whose SHA-256 starts with {prefix}",
                    do="Try again: the transfer was cut, or the file was replaced.",
                )
    except (OSError, http.client.HTTPException) as error:
        raise WeightsError(
            asked,
            found=f"it cannot be fetched to {str(path)!r} ({_said(error)})",
            do="Connect and try again, or put the file there yourself.",
        ) from error
    return Located(url, path, {})


def push(
    model: nn.Module | str | Path,
    repo: str,
    *,
    licence: str | None = None,
    evaluations: Sequence[Mapping[str, Any]] = (),
    header: Mapping[str, Any] | None = None,
    private: bool = False,
    revision: str | None = None,
    message: str = "Weights and their card",
) -> str:
    """Publishes weights: ``model.safetensors``, ``config.json`` and the model card, in one commit.

    Args:
        model: a network of ours, or a weights file or run folder, of whose data the place is left out.
        repo: ``ORG/NAME``; made if it does not exist.
        licence: of the weights, as the hub writes it (``apache-2.0``); None states none.
        evaluations: what was measured, as ``senet eval --json`` prints it.
        header: for a network, what the file shall say beside it, as for ``senet.weights.save``:
            ``preprocessing``, ``classes``.
        private: whether a repository that is made is private.
        revision: the branch; made if it does not exist. None is ``main``.
        message: of the commit.

    Returns:
        What loads it: ``hf:ORG/NAME@COMMIT``.

    Raises:
        MissingExtraError: huggingface_hub is not installed.
        OptionError: the repository's name, the header or an evaluation is not one.
        WeightsError: the file cannot be read, or the hub refuses.
    """
    asked = f"weights.push(model, {repo!r})"
    if _REPO.fullmatch(repo) is None:
        raise OptionError(asked, "this is no name on the hub", "ORG/NAME")
    if header is not None and not isinstance(model, nn.Module):
        raise OptionError(f"{asked[:-1]}, header=...)", "the file has a header already", "a network")
    with tempfile.TemporaryDirectory() as folder, _explained(asked, repo):
        said, tensors = _to_publish(asked, model, header)
        file = Path(folder, LAST)
        write(file, tensors, said)
        readme = text(repo, said, _learnt(model, tensors), licence=licence, evaluations=evaluations)
        contents: dict[str, Path | bytes] = {
            _STANDARD[0]: file,
            _CONFIG: json.dumps(config(said), indent=2).encode(),
            "README.md": readme.encode(),
        }
        api = _api(asked)
        from huggingface_hub import CommitOperationAdd

        api.create_repo(repo, private=private, exist_ok=True)
        if revision is not None:
            api.create_branch(repo, branch=revision, exist_ok=True)
        operations = [CommitOperationAdd(name, content) for name, content in contents.items()]
        commit = api.create_commit(repo, operations, commit_message=message, revision=revision)
        return f"hf:{repo}@{commit.oid}"


def _to_publish(
    asked: str, model: nn.Module | str | Path, header: Mapping[str, Any] | None
) -> tuple[dict[str, Any], Mapping[str, Tensor]]:
    """The header and the tensors of the file that is published."""
    if isinstance(model, nn.Module):
        said: dict[str, Any] | None = {**(header or {}), **header_of(model)}
        tensors = state_of(model)
    else:
        said, _, tensors = read_safetensors(file_of(model))
    if said is None:
        raise WeightsError(
            asked,
            found=f"{str(model)!r} is of another library",
            allowed="a network, or a weights file or run folder of senet",
            do="Make it ours with `senet convert` first.",
        )
    return said | ({"data": without_place(str(said["data"]))} if "data" in said else {}), tensors


def _learnt(model: nn.Module | str | Path, tensors: Mapping[str, Tensor]) -> int:
    """The parameters of a network; of a file, its tensors but batch norm's statistics and SE's mark."""
    if isinstance(model, nn.Module):
        return sum(parameter.numel() for parameter in model.parameters())
    return sum(tensor.numel() for key, tensor in tensors.items() if key.split(".")[-1] not in _NOT_LEARNT)


def _api(asked: str) -> Any:
    try:
        from huggingface_hub import HfApi
    except ImportError as error:
        raise MissingExtraError.of("huggingface_hub", extra="hub", need=asked) from error
    return HfApi(library_name="senet", library_version=__version__)


def _fetched(api: Any, asked: str, repo: str, files: Sequence[str], revision: str | None) -> Path:
    """The first of the files that the repository has; WeightsError, listing what it has, if it has none."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    for file in files:
        try:
            return Path(api.hf_hub_download(repo, file, revision=revision))
        except LocalEntryNotFoundError:
            # The hub cannot be asked: what the cache has of the others serves, without waiting again.
            cached = [try_to_load_from_cache(repo, other, revision=revision) for other in files]
            for path in cached:
                if isinstance(path, str):
                    return Path(path)
            raise
        except EntryNotFoundError:
            continue
    has = api.list_repo_files(repo, revision=revision)
    raise WeightsError(
        asked,
        found=f"the repository has no {' and no '.join(files)}",
        allowed=", ".join(sorted(has)[:_LISTED]) + (", ..." if len(has) > _LISTED else ""),
        do=f"Name one of its files: {FORM}.",
    )


def _config(api: Any, asked: str, repo: str, commit: str) -> dict[str, Any]:
    """The ``config.json`` of a commit, {} if it has none; WeightsError if it is damaged."""
    from huggingface_hub import _CACHED_NO_EXIST, try_to_load_from_cache
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    if try_to_load_from_cache(repo, _CONFIG, revision=commit) is _CACHED_NO_EXIST:
        return {}
    try:
        path = Path(api.hf_hub_download(repo, _CONFIG, revision=commit))
    except LocalEntryNotFoundError:
        # There may be one, and without it the weights may be taken for others.
        raise
    except EntryNotFoundError:
        return {}
    try:
        found = json.loads(path.read_bytes())
        if not isinstance(found, dict):
            raise ValueError(f"it holds a {type(found).__name__}")
    except (ValueError, RecursionError) as error:
        raise WeightsError(
            asked,
            found=f"{_CONFIG} of {repo} is damaged ({_said(error)})",
            allowed="a JSON object",
            do=f"Delete {str(path.resolve())!r} to fetch it again, or tell the repository's owner.",
        ) from error
    return found


@contextlib.contextmanager
def _explained(asked: str, repo: str) -> Iterator[None]:
    """Turns whatever the hub's client raises into a SenetError."""
    try:
        yield
    except SenetError:
        raise
    except Exception as error:
        # All of them: the client's errors, and those of the three HTTP libraries that its versions have
        # used, have no base in common.
        kind, found, do = _explanation(error)
        raise kind(asked, found=f"{repo}: {found}", do=do) from error


def _explanation(error: Exception) -> tuple[type[SenetError], str, str]:
    """The class of the error to raise, what was found, and what to do."""
    from huggingface_hub import errors

    log_in = "Log in with `hf auth login`, or set HF_TOKEN."
    reach = "Connect, or unset HF_HUB_OFFLINE, and try again."
    # In order: an error is often also one of a row below.
    rows: list[tuple[type[Exception], type[SenetError], str, str]] = [
        (errors.HFValidationError, OptionError, f"the name is not allowed ({_said(error)})", ""),
        (errors.GatedRepoError, WeightsError, "it is gated", f"Ask for access on its page. {log_in}"),
        (
            errors.RepositoryNotFoundError,
            WeightsError,
            "there is no such repository, or it is private",
            log_in,
        ),
        (errors.RevisionNotFoundError, WeightsError, "it has no such branch, tag or commit", "Name another."),
        (errors.OfflineModeIsEnabled, WeightsError, "HF_HUB_OFFLINE forbids to ask the hub", reach),
        (
            errors.LocalEntryNotFoundError,
            WeightsError,
            f"it is not in the cache, and the hub cannot be asked ({_said(error.__cause__ or error)})",
            reach,
        ),
        (errors.HfHubHTTPError, WeightsError, f"the hub refuses ({_said(error)})", f"Try again. {log_in}"),
    ]
    for of, kind, found, do in rows:
        if isinstance(error, of):
            return kind, found, do
    return WeightsError, _said(error), "Check the network, the space on the disk and the name, and try again."


def _said(error: BaseException) -> str:
    """An error's kind and first line: the hub's have many."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def _is_safe(url: str) -> bool:
    """Whether nobody on the way can change what a URL gives; this machine's own servers are trusted."""
    parts = urlsplit(url)
    return parts.scheme == "https" or (
        parts.scheme == "http" and parts.hostname in ("127.0.0.1", "localhost")
    )


def _fetch(url: str, path: Path) -> None:
    with urllib.request.urlopen(url, timeout=_SECONDS_OF_SILENCE) as response:
        if not _is_safe(response.url):
            raise OSError(f"it leads to {response.url}, which is not https")
        with (
            tqdm.wrapattr(response, "read", total=response.length, desc=path.name, disable=None) as stream,
            path.open("wb") as file,
        ):
            shutil.copyfileobj(stream, file)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
