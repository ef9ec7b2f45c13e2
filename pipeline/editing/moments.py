"""Uncentred second moments C = E[k kᵀ] of what MLPs' output maps read over a text corpus.

ROME and MEMIT keep what a model knows by keeping what it answers to the keys of ordinary text; C is
all that they need of those. Sums are taken in float64, over every token. A moment lies in a file
whose name is the hash of the weights, the corpus, the site, the number of tokens and the type it is
kept in; whoever reads it says which model it is for, so that no other model's is used by mistake.

Shape suffix: I inputs of a site.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from pipeline.editing import locate
from pipeline.errors import EditorError
from pipeline.models import Face
from pipeline.records import Example
from pipeline.storage import read_json, write_aside, write_json

Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of the moments.

    Attributes:
        blocks: whose MLPs; None: all.
        tokens: most tokens to read; None: the whole corpus (the papers: 100,000 articles).
        minimal: read only about ten tokens for each dimension of a key.
        dtype: what moments are kept in; sums are float64.
        batch: texts in one pass.
        save_every: passes between checkpoints.
        contexts: texts written beside the moments, to read keys in.
    """

    blocks: tuple[int, ...] | None = None
    tokens: int | None = None
    minimal: bool = False
    dtype: Literal["float32", "float64"] = "float64"
    batch: int = 64
    save_every: int = 200
    contexts: locate.Config = field(default_factory=locate.Config)


@dataclass(frozen=True)
class Moments:
    """What was taken of one model over one corpus.

    Attributes:
        second_II: by site.
        tokens: how many were read.
        contexts: by kind, for `locate.spots`.
        model, corpus: hashes of the weights and of the texts.
        curve: rows of site, tokens, since, change: ‖C - C'‖ / ‖C‖ (Frobenius), where C' was taken
            at `since` tokens: about half, and at the end of the corpus more.
    """

    second_II: Mapping[str, Tensor]
    tokens: int
    contexts: locate.Contexts
    model: str
    corpus: str
    curve: Sequence[Row] = ()

    def of(self, site: str) -> Tensor:
        """C of a site in float64. Raises EditorError when it was not taken."""
        if site not in self.second_II:
            raise EditorError(
                expected=f"the second moment of {site!r}",
                found=f"those of {', '.join(sorted(self.second_II)) or 'nothing'}",
                remedy="Add its block to `statistics.blocks` (null: all) and run the stage again.",
            )
        return self.second_II[site].double()


def hash_weights(face: Face) -> str:
    """SHA-256 of a model's parameters and buffers: names, types, shapes, bytes."""
    digest = hashlib.sha256()
    for name, value in sorted(face.model.state_dict().items()):
        digest.update(f"{name}\0{value.dtype}\0{tuple(value.shape)}\0".encode())
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def hash_texts(texts: Sequence[str]) -> str:
    """SHA-256 of a corpus, in its order."""
    digest = hashlib.sha256()
    for text in texts:
        digest.update(f"{len(text.encode())}\0{text}".encode())
    return digest.hexdigest()


def address(model: str, corpus: str, site: str, tokens: int, dtype: str) -> str:
    """The name under which one moment lies."""
    depends = json.dumps([model, corpus, site, tokens, dtype])
    return hashlib.sha256(depends.encode()).hexdigest()


def corpus_of(examples: Sequence[Example]) -> list[str]:
    """The text that a base model was taught."""
    return [example.prompt + example.target for example in examples if example.split == "train"]


def save(moments: Moments, folder: Path) -> None:
    """One file for each site, named by what it depends on, and what lies where."""
    files: dict[str, str] = {}
    for site, second_II in moments.second_II.items():
        dtype = str(second_II.dtype).removeprefix("torch.")
        name = address(moments.model, moments.corpus, site, moments.tokens, dtype)
        tensors = {"second": second_II.contiguous()}
        write_aside(folder / f"{name}.safetensors", writer(tensors))
        files[site] = name
    header = {"model": moments.model, "corpus": moments.corpus, "tokens": moments.tokens}
    write_json(folder / "contexts.json", {k: list(v) for k, v in moments.contexts.items()})
    write_json(folder / "moments.json", header | {"files": files, "curve": list(moments.curve)})


def writer(tensors: dict[str, Tensor], **header: str) -> Callable[[Path], None]:
    """What puts tensors and a header into a file, for `write_aside`."""
    return lambda part: save_file(tensors, str(part), metadata=header)


def load(folder: Path, face: Face) -> Moments:
    """Read moments of just this model.

    Raises:
        EditorError: they are another model's, or a file is missing or broken.
    """
    header = read_json(folder / "moments.json")
    model = hash_weights(face)
    if header["model"] != model:
        raise EditorError(
            expected=f"second moments of the model {model[:12]}",
            found=f"{folder}, taken of {header['model'][:12]}",
            remedy="Run the stage `moments` for this model: other weights have other keys.",
        )
    second: dict[str, Tensor] = {}
    for site, name in header["files"].items():
        path = folder / f"{name}.safetensors"
        try:
            second[site] = load_file(path, device=str(face.device))["second"]
        except (OSError, SafetensorError, KeyError) as error:
            raise _not_there(path, site, str(error)) from error
        dtype = str(second[site].dtype).removeprefix("torch.")
        if address(model, header["corpus"], site, header["tokens"], dtype) != name:
            raise _not_there(path, site, "a file that was renamed, or a header that was changed")
    contexts = {kind: tuple(texts) for kind, texts in read_json(folder / "contexts.json").items()}
    return Moments(
        second, header["tokens"], contexts, model, header["corpus"], tuple(header["curve"])
    )


def _not_there(path: Path, site: str, found: str) -> EditorError:
    return EditorError(
        expected=f"the second moment of {site!r} at {path}",
        found=found,
        remedy="Delete the folder and run the stage `moments` again.",
    )


def factor(second_II: Tensor, ridge: float, site: str) -> Tensor:
    """The Cholesky factor of C, in float64.

    Args:
        second_II: C.
        ridge: share of its mean diagonal that is added to the diagonal.
        site: whose it is, for the message.

    Raises:
        EditorError: C is singular: some direction was never seen.
    """
    second_II = second_II.double()
    second_II = second_II + ridge * second_II.diagonal().mean() * torch.eye(
        len(second_II), dtype=second_II.dtype, device=second_II.device
    )
    factor_II, info = torch.linalg.cholesky_ex(second_II)
    if info.item():
        raise EditorError(
            expected=f"a second moment of {site!r} that can be inverted",
            found="a singular one",
            remedy="Take it over more tokens (about ten for each key dimension), or raise `ridge`.",
        )
    return torch.as_tensor(factor_II)
