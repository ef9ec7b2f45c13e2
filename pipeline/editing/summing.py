"""Taking second moments: sums over a corpus that resume where they were interrupted.

Shape suffixes: B rows (texts), T positions, N tokens, I inputs of a site.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from pipeline.editing import locate
from pipeline.editing.moments import Config, Moments, Row, hash_texts, hash_weights, writer
from pipeline.editing.patch import linear_map, weight_OI
from pipeline.errors import DataError
from pipeline.models import Face
from pipeline.models.face import pad
from pipeline.models.layouts import downs
from pipeline.progress import bar
from pipeline.storage import write_aside

PER_KEY = 10  # tokens for each dimension of a key, in minimal mode


def take(
    face: Face,
    texts: Sequence[str],
    config: Config,
    seed: int,
    checkpoints: Path | None = None,
) -> Moments:
    """Second moments over a corpus, read in an order drawn by seed, and contexts.

    Args:
        face: a causal model.
        texts: the corpus; each is cut to the model's context.
        config: the settings.
        seed: of the order and of the contexts.
        checkpoints: a folder for an interrupted run to resume from, to the same bits; or None.

    Raises:
        ModelError: the model is not causal.
        DataError: there is no text.
    """
    contexts = locate.write_contexts(face, config.contexts, seed)
    every = downs(face.model)
    sites = [every[block] for block in (config.blocks or range(len(every)))]
    order = sorted(texts)
    random.Random(f"{seed}/moments").shuffle(order)
    limit = _limit(face, sites, config)
    total = _Sum(face, sites, limit)
    kept = _Kept(checkpoints / "moments.safetensors" if checkpoints else None, total)
    model, corpus = hash_weights(face), hash_texts(texts)
    identity = json.dumps([model, corpus, seed, config.batch, limit, sites, _STATE])
    done = kept.load(identity)
    parts = list(locate.batches(len(order), config.batch))
    for number, part in enumerate(bar(parts[done:], "second moments"), done + 1):
        if total.full:
            break
        total.add([order[i] for i in part])
        if number % config.save_every == 0:
            kept.save(identity, number)
    if not total.tokens:
        raise DataError(
            expected="a corpus with text in it", found="none", remedy="Give a larger corpus."
        )
    total.mark()
    kept.clear()
    dtype = getattr(torch, config.dtype)
    second = {site: (value / total.tokens).to(dtype) for site, value in total.sum_II.items()}
    return Moments(second, total.tokens, contexts, model, corpus, tuple(total.curve))


def _limit(face: Face, sites: Sequence[str], config: Config) -> int | None:
    if not config.minimal:
        return config.tokens
    width = max(weight_OI(linear_map(face.model, site)).shape[1] for site in sites)
    least = PER_KEY * width
    return least if config.tokens is None else min(least, config.tokens)


_STATE = ("tokens", "due", "seen", "curve")  # of a _Sum, besides its tensors


class _Sum:
    """Running sums of k kᵀ, and how they change as the tokens double."""

    def __init__(self, face: Face, sites: Sequence[str], limit: int | None) -> None:
        self.face, self.sites, self.limit = face, sites, limit
        self.tokens, self.due, self.seen = 0, 256, 0
        self.sum_II: dict[str, Tensor] = {}
        self.half: dict[str, Tensor] = {}  # C when last looked at
        self.curve: list[Row] = []

    @property
    def full(self) -> bool:
        """Whether enough was read."""
        return self.limit is not None and self.tokens >= self.limit

    def add(self, texts: Sequence[str]) -> None:
        """Read some texts."""
        context = self.face.context
        rows = [row[:context] for row in self.face.tokenizer(list(texts))["input_ids"] if row]
        if not rows:
            return
        ids_BT = pad(rows, self.face.tokenizer.pad_token_id, self.face.device)
        mask_BT = pad([[1] * len(row) for row in rows], 0, self.face.device)
        read_BTI = locate.inputs(self.face, ids_BT, mask_BT, self.sites)
        for site in self.sites:
            key_NI = read_BTI[site][mask_BT.bool()].double()
            moment_II = key_NI.T @ key_NI
            self.sum_II[site] = self.sum_II[site] + moment_II if site in self.sum_II else moment_II
        self.tokens += sum(map(len, rows))
        if self.tokens >= self.due:
            self.mark()
            self.due = 2 * self.tokens

    def mark(self) -> None:
        """Note how far each moment has moved since it was last looked at."""
        if self.curve and self.curve[-1]["tokens"] == self.tokens:
            return
        for site, sum_II in self.sum_II.items():
            now_II = sum_II / self.tokens
            if site in self.half:
                change = ((now_II - self.half[site]).norm() / now_II.norm()).item()
                row = {"site": site, "tokens": self.tokens, "since": self.seen, "change": change}
                self.curve.append(row)
            self.half[site] = now_II
        self.seen = self.tokens


@dataclass(frozen=True)
class _Kept:
    """The checkpoint of an interrupted run; with `path` None nothing is kept."""

    path: Path | None
    total: _Sum

    def save(self, identity: str, done: int) -> None:
        if self.path is None:
            return
        tensors = {f"sum/{site}": value for site, value in self.total.sum_II.items()}
        tensors |= {f"half/{site}": value for site, value in self.total.half.items()}
        at = json.dumps([done, *(getattr(self.total, name) for name in _STATE)])
        write_aside(self.path, writer(tensors, identity=identity, at=at))

    def load(self, identity: str) -> int:
        """Take up the sums in place; how many passes are done."""
        if self.path is None or not self.path.is_file():
            return 0
        try:
            with safe_open(str(self.path), framework="pt") as file:
                header = file.metadata()
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (OSError, SafetensorError):
            return 0  # unreadable: start over rather than stop
        if header["identity"] != identity:
            return 0
        device = self.total.face.device
        for name, value in tensors.items():
            kind, _, site = name.partition("/")
            into = self.total.sum_II if kind == "sum" else self.total.half
            into[site] = value.to(device)
        done, *state = json.loads(header["at"])
        for name, value in zip(_STATE, state, strict=True):
            setattr(self.total, name, value)
        return int(done)

    def clear(self) -> None:
        if self.path is not None:
            self.path.unlink(missing_ok=True)
            with suppress(OSError):  # not there, or not empty
                self.path.parent.rmdir()
