"""Where a fact's subject ends, and what an MLP reads and writes there.

ROME and MEMIT edit at the last token of the subject. A key is averaged over contexts: short texts
that the model itself wrote before the prompt.

Shape suffixes:
    B rows (texts)      T positions     I inputs of a site     O outputs of a site
    D width of the stream
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from pipeline.editing.patch import Intervention, applied, linear_map
from pipeline.errors import ModelError, SettingsError
from pipeline.mentions import last_character, token_of
from pipeline.models.causal import Causal
from pipeline.models.face import Encoded, Face, pad
from pipeline.models.lower import Resume
from pipeline.records import Request

Kind = Literal["free", "opened", "none"]
Contexts = Mapping[str, tuple[str, ...]]
_OPENINGS = ("The", "Therefore", "Because", "I", "You")  # of MEMIT
_JOINT = ". "  # between a context and the prompt, as both references have it


@dataclass(frozen=True, kw_only=True)
class Config:
    """Contexts to write; the defaults are the references'.

    Attributes:
        free: (tokens, texts) of those written from nothing: ROME's.
        opened: (tokens, texts) for each of five opening words: MEMIT's.
        top_k: each token is drawn out of so many.
    """

    free: tuple[tuple[int, ...], ...] = ((5, 10), (10, 10))
    opened: tuple[tuple[int, ...], ...] = ((10, 1),)
    top_k: int = 5

    def __post_init__(self) -> None:
        """Raises SettingsError for what is no (tokens, texts), each at least 1."""
        for pair in (*self.free, *self.opened):
            if len(pair) != 2 or min(pair) < 1:
                raise SettingsError(
                    expected="contexts as pairs (tokens, texts), each at least 1",
                    found=str(list(pair)),
                    remedy="Correct statistics.contexts; [] writes none of a kind.",
                )


@dataclass(frozen=True)
class Spot:
    """One text of an edit, and the place of its subject's last token."""

    encoded: Encoded
    at: int


@dataclass(frozen=True)
class Read:
    """What was found at one token of each text: what sites read, and what a block put out."""

    key_BI: dict[str, Tensor]
    stream_BD: Tensor | None


def write_contexts(face: Face, config: Config, seed: int) -> dict[str, tuple[str, ...]]:
    """Contexts by kind, drawn by the model from the seed alone.

    Raises:
        ModelError: the model does not write on by itself.
    """
    if not isinstance(face, Causal):
        raise ModelError(
            expected="a causal language model, which writes contexts",
            found=f"a {face.kind} model",
            remedy="ROME and MEMIT edit causal models alone.",
        )
    found: dict[str, tuple[str, ...]] = {"none": ()}
    for kind, starts, sizes in (
        ("free", [face.begin], config.free),
        ("opened", list(_OPENINGS), config.opened),
    ):
        texts: list[str] = []
        for tokens, count in sizes:
            draw = random.Random(f"{seed}/contexts {kind} {tokens}")
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(draw.getrandbits(32))
                for start in starts:  # one by one: none of them is padded
                    written = face.sample([start] * count, tokens, top_k=config.top_k)
                    texts += [("" if kind == "free" else start) + text for text in written]
        found[kind] = tuple(" ".join(text.split()) + _JOINT for text in texts)
    return found


def spots(face: Face, requests: Sequence[Request], contexts: Sequence[str]) -> list[list[Spot]]:
    """For each edit its text alone, then after each context.

    A context that makes a text outgrow the model is left away, and the text stands alone again.
    """
    pairs = [(c + r.prompt, r.target) for r in requests for c in ("", *contexts)]
    bare = [pairs[i * (len(contexts) + 1)] for i in range(len(requests))]
    lengths = [len(ids) for ids in face.tokenizer([p + t for p, t in pairs])["input_ids"]]
    fits = [
        pair if length <= face.context else bare[i // (len(contexts) + 1)]
        for i, (pair, length) in enumerate(zip(pairs, lengths, strict=True))
    ]
    subjects = [request.subject for request in requests for _ in range(len(contexts) + 1)]
    whole = _spots(face, fits, subjects)
    return [whole[i : i + len(contexts) + 1] for i in range(0, len(whole), len(contexts) + 1)]


def essence(face: Face, requests: Sequence[Request]) -> list[Spot]:
    """Of each subject, "{subject} is a" up to the subject's end, where its essence is read."""
    found = _spots(
        face, [(f"{r.subject} is", " a") for r in requests], [r.subject for r in requests]
    )
    return [
        Spot(Encoded(s.encoded.ids[: s.at + 1], [s.at], [s.encoded.ids[s.at]]), s.at) for s in found
    ]


def read(
    face: Face,
    where: Sequence[Spot],
    sites: Sequence[str],
    block: str | None = None,
    *,
    patch: Intervention | None = None,
    rows_B: Sequence[int] | None = None,
    resume: Resume | None = None,
    size: int = 256,
) -> Read:
    """What sites read at each text's spot, and what a block puts out there.

    Args:
        face: the unedited model.
        where: texts, each with its place.
        sites: linear maps.
        block: name of a block, or None.
        patch: edits to read under, text b under the patch's row `rows_B[b]`.
        resume: where earlier passes over these very texts left off.
        size: texts in one pass.
    """
    parts: list[tuple[list[int], dict[str, Tensor]]] = []
    order = sorted(range(len(where)), key=lambda i: where[i].at)
    for number, start in enumerate(range(0, len(order), size)):
        part = order[start : start + size]
        with ExitStack() as stack:
            if resume is not None:
                stack.enter_context(resume.going_on(face.model, number))
            if patch is not None and patch.rows:
                rows = range(len(where)) if rows_B is None else rows_B
                edit_B = torch.tensor([rows[i] for i in part], device=face.device)
                stack.enter_context(applied(face.model, patch, edit_B))
            parts.append((part, _pass(face, [where[i] for i in part], sites, block)))
    found = {
        name: torch.cat([values[name] for _, values in parts])
        for name in (*sites, *([block] if block else []))
    }
    back = torch.empty(len(order), dtype=torch.long)
    back[torch.tensor([i for part, _ in parts for i in part])] = torch.arange(len(order))
    back = back.to(face.device)
    return Read({s: found[s][back] for s in sites}, found[block][back] if block else None)


def inputs(face: Face, ids_BT: Tensor, mask_BT: Tensor, sites: Sequence[str]) -> dict[str, Tensor]:
    """What each site reads at every position, B x T x I."""
    return _outputs(face, ids_BT, mask_BT, sites, None, lambda tensor: tensor)


def _pass(
    face: Face, where: Sequence[Spot], sites: Sequence[str], block: str | None
) -> dict[str, Tensor]:
    ids = [spot.encoded.ids[: spot.at + 1] for spot in where]
    ids_BT = pad(ids, face.tokenizer.pad_token_id, face.device)
    mask_BT = pad([[1] * len(row) for row in ids], 0, face.device)
    row_B = torch.arange(len(where), device=face.device)
    at_B = torch.tensor([spot.at for spot in where], device=face.device)
    return _outputs(face, ids_BT, mask_BT, sites, block, lambda tensor: tensor[row_B, at_B])


@torch.no_grad()
def _outputs(
    face: Face,
    ids_BT: Tensor,
    mask_BT: Tensor,
    sites: Sequence[str],
    block: str | None,
    pick: Callable[[Tensor], Tensor],
) -> dict[str, Tensor]:
    """Inputs of sites and the output of a block, no further than to the last of them."""
    found: dict[str, Tensor] = {}
    waiting = {*sites, *([block] if block else [])}

    def keep(name: str, tensor: Tensor) -> None:
        found[name] = pick(tensor.reshape(*ids_BT.shape, tensor.shape[-1]))
        waiting.discard(name)
        if not waiting:
            raise _AllReadError

    with ExitStack() as stack:
        for site in sites:
            hook = _Reader(site, keep).before
            module = linear_map(face.model, site)
            stack.callback(module.register_forward_pre_hook(hook).remove)
        if block:
            after = _Reader(block, keep).after
            whole = face.model.get_submodule(block)
            stack.callback(whole.register_forward_hook(after).remove)
        with suppress(_AllReadError):
            face.model(input_ids=ids_BT, attention_mask=mask_BT, use_cache=False)
    return found


class _AllReadError(Exception):
    """Ends a pass as soon as nothing that comes later is asked for."""


@dataclass(frozen=True)
class _Reader:
    name: str
    keep: Callable[[str, Tensor], None]

    def before(self, _module: Any, inputs: tuple[Tensor, ...]) -> None:
        self.keep(self.name, inputs[0])

    def after(self, _module: Any, _inputs: Any, output: Any) -> None:
        self.keep(self.name, output[0] if isinstance(output, tuple) else output)


def _spots(face: Face, pairs: Sequence[tuple[str, str]], subjects: Sequence[str]) -> list[Spot]:
    encoded = face.tokenise(pairs)
    texts = [prompt + target for prompt, target in pairs]
    offsets = face.tokenizer(texts, return_offsets_mapping=True)["offset_mapping"]
    found = []
    for (prompt, _), subject, item, places in zip(pairs, subjects, encoded, offsets, strict=True):
        at = token_of(places, last_character(prompt, subject))
        # The token may reach beyond the subject, never beyond what predicts the target.
        found.append(Spot(item, min(at, item.positions[0])))
    return found


def batches(count: int, size: int) -> Iterator[range]:
    """Runs of at most `size` numbers below `count`."""
    for start in range(0, count, size):
        yield range(start, min(start + size, count))
