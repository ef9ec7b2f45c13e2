"""Base models: opened from a folder or hub name, or trained on a benchmark's own text.

A base must know what the edits will change, so it is taught every example of its benchmark and its
report says how much of that it answers exactly.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F

from pipeline.errors import ModelError
from pipeline.measures import exact, nll, tokens
from pipeline.models import Encoded, Face, face_of, load
from pipeline.models.layouts import Kind
from pipeline.models.scratch import Shape, make_model, make_tokenizer
from pipeline.progress import bar
from pipeline.records import LABELS, Example
from pipeline.statements import Statements


@dataclass(frozen=True, kw_only=True)
class Config:
    """How a base model comes to be.

    Attributes:
        kind: which face its benchmark needs.
        source: a Hugging Face folder or hub name to use as it is; None trains from scratch.
        shape: the size of a model trained from scratch.
        epochs, batch, lr, warmup, weight_decay: AdamW with a linear warm-up (steps) and decay.
        smoothing: label smoothing. It gives a classifier's logits one size, as the entropy term
            does in De Cao et al.'s FEVER model: a claim far surer than others resists its edit.
        through_subject, anywhere, from_within: how a language model is shown what it is taught, as
            `pipeline.statements` says.
        sampler: a second, smaller language model taught the same text, whose samples serve as edit
            targets (Wikitext, where the paper uses distilGPT-2).
    """

    kind: Kind
    source: str | None = None
    shape: Shape = field(default_factory=Shape)
    epochs: int = 20
    batch: int = 256
    lr: float = 3e-3
    warmup: int = 100
    weight_decay: float = 0.0
    smoothing: float = 0.0
    through_subject: float = 0.0
    anywhere: bool = False
    from_within: float = 0.0
    sampler: Shape | None = None


def make_base(
    examples: Sequence[Example], config: Config, shape: Shape, seed: int
) -> tuple[Face, float]:
    """Open or train a base model.

    Returns:
        Its face, and the mean loss of the last epoch (NaN when it was not trained).

    Raises:
        ModelError: `config.source` cannot be opened, or is a model of another kind.
    """
    if config.source is not None:
        return _opened(config.source, config.kind), math.nan
    taught = [example for example in examples if example.split == "train"]
    tokenizer = make_tokenizer(config.kind, (_text(example) for example in taught), shape)
    face = face_of(make_model(config.kind, tokenizer, shape, seed), tokenizer)
    return face, _teach(face, taught, config, seed)


def _opened(source: str, kind: Kind) -> Face:
    face = load(source)
    if face.kind != kind:
        raise ModelError(
            expected=f"a {kind} model at {source}, as the benchmark's cases are asked of",
            found=f"a {face.kind} model",
            remedy="Set benches.BENCHMARK.base.source to such a model, or to null to train one.",
        )
    return face


def save_base(face: Face, folder: Path) -> None:
    """Write a Hugging Face folder."""
    face.model.save_pretrained(folder)
    face.tokenizer.save_pretrained(folder)


def quality(face: Face, examples: Sequence[Example], batch: int = 256) -> dict[str, Any]:
    """How well a base model knows what it was taught, and what was held out.

    Returns:
        exact_taught, exact_heldout (share of examples whose target is the argmax under teacher
        forcing), perplexity_heldout (passages only), majority_baseline (classifiers only).
        A measure that does not apply is None.
    """
    found: dict[str, Any] = {"majority_baseline": None, "perplexity_heldout": None}
    passages = all(not example.prompt for example in examples)
    for name, split in (("taught", "train"), ("heldout", "heldout")):
        part = [example for example in examples if example.split == split]
        success, perplexity = _score(face, part, batch) if part else (None, None)
        found[f"exact_{name}"] = None if passages else success
        if name == "heldout" and passages:
            found["perplexity_heldout"] = perplexity
    if face.kind == "classifier":
        found["majority_baseline"] = _majority(examples)
    return found


def _majority(examples: Sequence[Example]) -> float:
    true = sum(example.target == LABELS[1] for example in examples if example.split == "train")
    total = sum(example.split == "train" for example in examples)
    return max(true, total - true) / total


def _text(example: Example) -> str:
    # Labels are no text: a classifier never reads them.
    return example.prompt if example.target in LABELS else example.prompt + example.target


def _teach(face: Face, taught: Sequence[Example], config: Config, seed: int) -> float:
    statements = Statements(
        face,
        taught,
        through_subject=config.through_subject,
        anywhere=config.anywhere,
        from_within=config.from_within,
        seed=seed,
    )
    steps = config.epochs * math.ceil(len(taught) / config.batch)
    face.model.requires_grad_(True).train()
    optimizer = torch.optim.AdamW(
        face.model.parameters(), lr=config.lr, weight_decay=config.weight_decay, fused=True
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, _warm_then_fall(config.warmup, steps))
    losses: list[float] = []
    batches = _epochs(statements.encoded, config, seed)
    for rows in bar(batches, f"teach {face.kind} base", total=steps):
        batch = statements.batch(rows)
        logits_NV = face.logits(batch)
        loss = F.cross_entropy(logits_NV, batch.label_N, label_smoothing=config.smoothing)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(face.model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    face.model.requires_grad_(False).eval()
    last = losses[-max(1, steps // config.epochs) :]
    return sum(last) / len(last)


def _warm_then_fall(warmup: int, steps: int) -> Any:
    def factor(step: int) -> float:
        rise = min(1.0, (step + 1) / max(1, min(warmup, steps // 4)))
        return rise * max(0.02, 1 - step / steps)

    return factor


def _epochs(encoded: Sequence[Encoded], config: Config, seed: int) -> Iterator[list[Encoded]]:
    """Batches of similar length in random order: little padding, no fixed neighbours."""
    draw = random.Random(f"{seed}/teach")
    for _ in range(config.epochs):
        order = list(encoded)
        draw.shuffle(order)
        order.sort(key=lambda item: len(item) // 4)  # stable: random within a length class
        batches = [order[i : i + config.batch] for i in range(0, len(order), config.batch)]
        draw.shuffle(batches)
        yield from batches


@torch.no_grad()
def _score(face: Face, examples: Sequence[Example], size: int) -> tuple[float, float]:
    encoded = face.tokenise([(example.prompt, example.target) for example in examples])
    encoded.sort(key=len)
    hits = total_nll = total_tokens = 0.0
    for start in range(0, len(encoded), size):
        batch = face.collate(encoded[start : start + size])
        logits_NV = face.logits(batch)
        hits += exact(logits_NV, batch).sum().item()
        counts_B = tokens(batch)
        total_nll += (nll(logits_NV, batch) * counts_B).sum().item()
        total_tokens += counts_B.sum().item()
    return hits / len(encoded), math.exp(total_nll / total_tokens)
