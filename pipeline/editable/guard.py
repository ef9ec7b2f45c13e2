"""A guard over what edits cost: a probe set that the edited model should answer as before.

After each edit the model reads the probes again. Four measures are watched, each against the
untouched model: perplexity of the probes' targets, agreement (share of target tokens with the same
argmax), norm growth (the largest ‖ΔW‖/‖W‖ of any site, Frobenius), and the entropy of what it
writes freely (a model that loops says little; ROME, appendix B). Where a probe has no target, what
the untouched model answers is the target.

Shape suffixes: N target tokens of all probes, V vocabulary, B probes.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from pipeline import measures
from pipeline.editable.asking import answers
from pipeline.editable.probes import OPENINGS, checked, pairs
from pipeline.editing.patch import linear_map, weight_OI
from pipeline.editing.updates import Factors, Update
from pipeline.errors import DataError, SettingsError, near_misses
from pipeline.metrics_text import entropy
from pipeline.models import Face
from pipeline.records import Probe

_LOG = logging.getLogger(__name__)
# The measures that have a limit, and the largest that it can be.
LIMITS = {"perplexity": math.inf, "agreement": 1.0, "growth": math.inf, "entropy": 1.0}
_TOKENS = 20  # of a free text
_TEXTS = 8  # free texts
_ROWS = 64  # probes read at once


Action = Literal["flag", "refuse", "off"]


@dataclass(frozen=True, kw_only=True)
class Guard:
    """What edits may cost, and what happens when they cost more.

    Attributes:
        action: "flag" an edit that goes past a limit, "refuse" it, or measure nothing ("off").
        probes: what to watch; empty: `OPENINGS`, with the untouched model's own answers.
        perplexity: most that the probes' perplexity may grow, as a factor.
        agreement: least share of target tokens that keep their argmax.
        growth: largest ‖ΔW‖/‖W‖ of a site, all edits together.
        entropy: least share of the untouched model's entropy of free text.
    """

    action: Action = "flag"
    probes: tuple[Probe, ...] = ()
    perplexity: float = 1.5
    agreement: float = 0.8
    growth: float = 0.5
    entropy: float = 0.7

    def __post_init__(self) -> None:
        """Raises DataError for a probe that is none, SettingsError for a limit or an action."""
        if self.action not in get_args(Action):
            raise SettingsError(
                expected=f"the guard's action to be {' or '.join(map(repr, get_args(Action)))}",
                found=repr(self.action),
                remedy=near_misses(str(self.action).lower(), get_args(Action)),
            )
        object.__setattr__(self, "probes", checked(self.probes))
        for name, most in LIMITS.items():
            value = getattr(self, name)
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not (number and 0 <= value <= most):
                kind = "" if number else "to be a number "
                raise SettingsError(
                    expected=f"the guard's {name} {kind}from 0 to {most:g}",
                    found=repr(value),
                    remedy="Perplexity and growth are the most, agreement and entropy the least.",
                )


def guard_of(given: Guard | None) -> Guard:
    """A guard, or the usual one. Raises SettingsError for what is none."""
    if given is None or isinstance(given, Guard):
        return given or Guard()
    raise SettingsError(
        expected="a Guard", found=repr(given)[:80], remedy='Say Guard(action="refuse").'
    )


@dataclass(frozen=True, kw_only=True)
class Health:
    """What the probes say of a model with its edits. NaN: not measured on this kind of model.

    Attributes:
        perplexity_before, perplexity: of the probes' targets, per token.
        agreement: share of the probes' target tokens with the same argmax.
        drawdown: accuracy on the probes' targets before minus after (exact, teacher forced).
        growth: largest ‖ΔW‖/‖W‖ of a site.
        entropy_before, entropy: of two- and three-word sequences of free text, in bits.
        past: the limits that were passed, in words.
    """

    perplexity_before: float
    perplexity: float
    agreement: float
    drawdown: float
    growth: float
    entropy_before: float
    entropy: float
    past: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Seen:
    """The probes, as a model reads them; tokens and losses batch by batch.

    Its logits are not kept: of many probes and words they would fill the memory.
    """

    said_N: Sequence[Tensor]  # likeliest tokens
    nll_B: Sequence[Tensor]
    finite_B: Sequence[Tensor]
    entropy: float


class Watch:
    """The probes of one model, and what it says to them untouched.

    Raises:
        DataError: probes were given, and the model can read none of them.
    """

    def __init__(self, face: Face, guard: Guard) -> None:
        self.guard, self.face = guard, face
        self.pairs = _pairs(face, guard.probes)
        self.openings = [prompt for prompt, _ in self.pairs if prompt][:_TEXTS]
        starts = range(0, len(self.pairs), _ROWS)
        self.batches = [face.encode(self.pairs[start : start + _ROWS]) for start in starts]
        self.before = self._look(face)

    def judge(
        self, face: Face, updates: Mapping[str, Sequence[Update]], model: nn.Module
    ) -> Health:
        """Measure the model as it answers now.

        Args:
            face: the edited model; called where its edits are applied.
            updates: what is added at each site.
            model: whose weights they are added to.
        """
        after = self._look(face)
        health = self._compare(after, _growth(updates, model))
        return Health(**(vars(health) | {"past": _past(self.guard, health)}))

    @torch.no_grad()
    def _look(self, face: Face) -> _Seen:
        said_N, nll_B, finite_B = [], [], []
        for batch in self.batches:
            logits_NV = face.logits(batch)
            said_N.append(logits_NV.argmax(-1))
            nll_B.append(measures.nll(logits_NV, batch))
            finite_B.append(measures.finite(logits_NV, batch))
        return _Seen(said_N, nll_B, finite_B, self._entropy(face))

    def _entropy(self, face: Face) -> float:
        """Mean over free texts; a classifier writes none."""
        if face.kind == "classifier" or not self.openings:
            return math.nan
        taken = max(len(ids) for ids in face.tokenizer(self.openings)["input_ids"])
        room = min(_TOKENS, face.context - taken - 2)
        if room < 4:
            return math.nan
        texts = answers(face, self.openings, room)
        return sum(map(entropy, texts)) / len(texts)

    def _compare(self, after: _Seen, growth: float) -> Health:
        nan, before = math.nan, self.before
        if not self.batches:
            return Health(
                perplexity_before=nan, perplexity=nan, agreement=nan, drawdown=nan,
                growth=growth, entropy_before=nan, entropy=nan,
            )  # fmt: skip
        right_N = [batch.label_N for batch in self.batches]
        exact = [(self._likeness(seen.said_N, right_N) == 1).float() for seen in (before, after)]
        agree_B = self._likeness(before.said_N, after.said_N)
        return Health(
            perplexity_before=self._perplexity(before),
            perplexity=self._perplexity(after),
            agreement=(agree_B * torch.cat(list(after.finite_B))).mean().item(),
            drawdown=exact[0].mean().item() - exact[1].mean().item(),
            growth=growth,
            entropy_before=before.entropy,
            entropy=after.entropy,
        )

    def _likeness(self, one_N: Sequence[Tensor], two_N: Sequence[Tensor]) -> Tensor:
        parts = zip(one_N, two_N, self.batches, strict=True)
        return torch.cat([measures.likeness(one, two, batch) for one, two, batch in parts])

    def _perplexity(self, seen: _Seen) -> float:
        counts_B = torch.cat([measures.tokens(batch) for batch in self.batches])
        total = (torch.cat(list(seen.nll_B)) * counts_B).sum() / counts_B.sum()
        return total.exp().item()


def _pairs(face: Face, given: Sequence[Probe]) -> list[tuple[str, str]]:
    """Prompts and targets to watch. Openings that nobody asked for may go unmeasured, silently."""
    if not given:
        return pairs(face, [Probe(text, "") for text in OPENINGS])[0]
    found, reasons = pairs(face, given)
    if not found:
        raise DataError(
            expected="a probe that this model can read",
            found=f"{len(given)} probes and none of them; of the first: {reasons[0]}",
            remedy="Give other probes, or none.",
        )
    if reasons:
        _LOG.info(
            "%d of %d probes are left out; of the first: %s", len(reasons), len(given), reasons[0]
        )
    return found


def _growth(updates: Mapping[str, Sequence[Update]], model: nn.Module) -> float:
    ratios = [
        (_norm(parts) / weight_OI(linear_map(model, site)).float().norm()).item()
        for site, parts in updates.items()
    ]
    return max(ratios, default=0.0)


def _norm(parts: Sequence[Update]) -> Tensor:
    """‖ΔW‖ of a sum; of factors by their Gram matrices, without writing ΔW out."""
    if all(isinstance(part, Factors) for part in parts):
        left_KO = torch.cat([p.left_RKO[0] for p in parts if isinstance(p, Factors)]).double()
        right_KI = torch.cat([p.right_RKI[0] for p in parts if isinstance(p, Factors)]).double()
        square: Tensor = torch.trace(left_KO @ left_KO.T @ right_KI @ right_KI.T)
        norm: Tensor = square.clamp(min=0).sqrt()
        return norm
    total_OI: Tensor = torch.stack([part.dense_ROI()[0] for part in parts]).sum(0)
    norm = total_OI.norm()
    assert isinstance(norm, Tensor)
    return norm


def _past(guard: Guard, health: Health) -> tuple[str, ...]:
    """Limits that were passed. A number that is no number is past every limit, if there was one."""
    ratio = health.perplexity / health.perplexity_before
    calm = health.entropy / health.entropy_before if health.entropy_before else math.nan
    checks: list[tuple[bool, float, str]] = [
        (not ratio <= guard.perplexity, health.perplexity_before,
         f"perplexity grew {_told(ratio, guard.perplexity, '-fold')}"),
        (not health.agreement >= guard.agreement, health.perplexity_before,
         f"agreement {_told(health.agreement, guard.agreement)}"),
        (not health.growth <= guard.growth, 0.0,
         f"norm growth {_told(health.growth, guard.growth)}"),
        (not calm >= guard.entropy, calm,
         f"entropy of free text {_told(calm, guard.entropy, ' of what it was')}"),
    ]  # fmt: skip
    return tuple(words for past, known, words in checks if past and not math.isnan(known))


def _told(value: float, limit: float, unit: str = "") -> str:
    """A measure and its limit, in as many digits as it takes to see on which side it is."""
    most = f"{limit:g}" if float(f"{limit:g}") == limit else repr(limit)
    side = (value > limit, value < limit)  # neither of NaN, which is written as it is
    rounded = (f"{value:.{digits}f}" for digits in range(2, 17))
    text = next((t for t in rounded if (float(t) > limit, float(t) < limit) == side), repr(value))
    return f"{text}{unit}, limit {most}"


def as_dict(health: Health) -> dict[str, Any]:
    """Plain values for JSON, where NaN is null."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in vars(health).items()
    }


def of_dict(plain: Mapping[str, Any]) -> Health:
    """`as_dict`, back."""
    values = {key: math.nan if value is None else value for key, value in plain.items()}
    return Health(**(values | {"past": tuple(plain["past"])}))
