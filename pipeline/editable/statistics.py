"""Second moments for ROME and MEMIT: read, or taken now and kept beside the journal.

The papers take them over an encyclopedia. For a model of one's own there may be none at hand; then
the model writes the text itself, from nothing, which is what it holds for ordinary.
"""

from __future__ import annotations

import hashlib
import logging
import random
from collections.abc import Sequence
from pathlib import Path

import torch

from pipeline.editable.texts import lines, read_text
from pipeline.editing import moments, summing
from pipeline.editing.moments import Moments
from pipeline.editing.patch import linear_map, weight_OI
from pipeline.errors import DataError
from pipeline.models import Face
from pipeline.models.causal import Causal
from pipeline.models.layouts import downs
from pipeline.progress import bar

_LOG = logging.getLogger(__name__)
_ROWS, _TOP_K = 32, 50


def moments_for(face: Face, source: Path | None, kept: Path | None, seed: int) -> Moments:
    """Second moments of this model.

    Args:
        source: a folder of the stage `moments`, or a file of texts, one on each line; None: texts
            that the model writes.
        kept: a folder in which those that are taken now are kept for the next time.

    Raises:
        EditorError: they are another model's, or broken.
        DataError: there is no such folder or file, or no text in it.
        ModelError: the model is not causal.
    """
    if source is not None and source.is_dir():
        return moments.load(source, face)
    texts = None if source is None else _lines(source)
    name = "own words" if texts is None else moments.hash_texts(texts)
    about = f"{name} {seed} {moments.hash_weights(face)} {_CONFIG!r}"  # of another dtype, others
    digest = hashlib.sha256(about.encode()).hexdigest()[:16]
    folder = None if kept is None else kept / f"moments-{digest}"
    if folder is not None and (folder / "moments.json").is_file():
        return moments.load(folder, face)
    if source is None:
        _LOG.info("Taking second moments over what the model writes; --moments takes better texts.")
    else:
        _LOG.info("Taking second moments over %s.", source)
    found = summing.take(
        face, own_words(face, seed) if texts is None else texts, _CONFIG, seed, folder
    )
    if folder is not None:
        moments.save(found, folder)
    return found


_CONFIG = moments.Config(minimal=True)


def own_words(face: Face, seed: int) -> list[str]:
    """Texts drawn from the model, about as many tokens as minimal moments take.

    Raises:
        ModelError: the model does not write on by itself.
    """
    if not isinstance(face, Causal):
        return []  # `take` says what is wrong
    tokens = summing.PER_KEY * max(
        weight_OI(linear_map(face.model, site)).shape[1] for site in downs(face.model)
    )
    length = min(64, face.context - 2)
    texts: list[str] = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(random.Random(f"{seed}/own words").getrandbits(32))
        for _ in bar(range(-(-tokens // (_ROWS * length))), "text for second moments"):
            texts += face.sample([face.begin] * _ROWS, length, top_k=_TOP_K)
    return texts


def _lines(path: Path) -> Sequence[str]:
    remedy = "Name the stage's folder (data/SUITE/BENCH/moments) or a UTF-8 text file."
    text = read_text(path, "a folder of second moments, or texts,", remedy)
    found = [line.strip() for _, line in lines(text)]
    if not found:
        raise DataError(
            expected=f"texts in {path}, one on each line", found="none", remedy="Give more text."
        )
    return found
