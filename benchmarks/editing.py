"""Single edits with their scoring, fine-tuning in rows, and facts scored on two targets."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor

from benchmarks import material, plain
from benchmarks.clock import Contest, Found
from benchmarks.setup import Setup
from benchmarks.training import PATCHES, Item, make_learner
from pipeline import scoring
from pipeline.editing import metalearn
from pipeline.editing.draws import encode
from pipeline.editing.patch import Patch, linear_map, weight_OI, weights_of
from pipeline.editing.updates import Factors
from pipeline.editors import enn, ft
from pipeline.models import Face
from pipeline.models.face import Encoded
from pipeline.models.layouts import downs
from pipeline.records import Case

_SCORING = scoring.Config(generate=False)
_RATE = 1e-5


def single_edits(setup: Setup) -> list[Contest]:
    """Edits of MEND, KE and ENN, each scored on its wordings and on 4 bystanders."""
    return [_single(setup, name) for name in setup.work.learners]


def _single(setup: Setup, name: str) -> Contest:
    work = setup.work
    sides = _Singles(setup.face, partial(make_learner, setup, name), name)
    sides.cases = material.scored_cases(setup.size, work.cases)
    return Contest(
        name=f"{name} edits",
        what=f"single edits of {name.upper()}, scored on 1 rephrasing and 4 bystanders",
        unit="edits",
        ours=sides.ours,
        plain=sides.plain,
        count=work.cases,
        few=work.few_cases,
        goal=2.5,
    )


class _Singles:
    cases: Sequence[Case]

    def __init__(self, face: Face, make: Callable[[], metalearn.Learner], name: str) -> None:
        self.face, self.make, self.name = face, make, name
        self._learner: metalearn.Learner | None = None

    @property
    def learner(self) -> metalearn.Learner:
        """Networks, made when first asked for."""
        if self._learner is None:
            self._learner = self.make().eval()
            if isinstance(self._learner, enn.Enn):
                self._learner.model.requires_grad_(False)
        return self._learner

    @torch.no_grad()
    def ours(self, count: int) -> Found:
        """As `protocols.single` has it, all in one shard."""
        now, cases = self.learner.adapt(self.face), self.cases[:count]
        patch = self.learner.patch(now, encode(now, [case.request() for case in cases]))
        return measured(scoring.score(now, cases, patch, _SCORING))

    @torch.no_grad()
    def plain(self, count: int) -> Found:
        """Case by case, probe by probe."""
        now, rows = self.learner.adapt(self.face), []
        for case in self.cases[:count]:
            (edit,) = now.tokenise([(case.prompt, case.target_new)])
            item = Item(case.request(), edit, edit, edit)
            weights = plain.edited(now, PATCHES[self.name](now, self.learner, item))
            rows += score_one(now, case, weights)
        return measured(rows)


def measured(rows: Sequence[Mapping[str, object]]) -> dict[str, Tensor]:
    """What both sides must agree on: likelihoods and divergences in nats, and successes."""
    names = ("nll_new", "nll_true", "pre_nll_new", "pre_nll_true", "kl")
    nats = [[float(row[name]) for name in names] for row in rows]  # type: ignore[arg-type]
    hits = [float(row["tf_exact"]) for row in rows]  # type: ignore[arg-type]
    return {"nats": torch.tensor(nats), "successes": torch.tensor(hits)}


def score_one(face: Face, case: Case, weights: Mapping[str, Tensor]) -> list[dict[str, object]]:
    """Every probe of a case by itself, before and after, with each of its targets."""
    rows: list[dict[str, object]] = []
    for asked in scoring.questions(case, 0, 0):
        (item,) = face.tokenise([(asked.prompt, asked.target)])
        before_NV, after_NV = plain.logits(face, item), plain.logits(face, item, weights)
        labels = torch.tensor(item.labels, device=face.device)
        about_new = asked.kind in ("edit", "rephrase")
        own, other = ("nll_new", "nll_true") if about_new else ("nll_true", "nll_new")
        row: dict[str, object] = {
            f"pre_{own}": plain.nll(before_NV, item),
            own: plain.nll(after_NV, item),
            f"pre_{other}": float("nan"),
            other: float("nan"),
            "kl": plain.kl(before_NV, after_NV),
            "tf_exact": (after_NV.argmax(-1) == labels).all(),
        }
        if asked.rival:
            (rival,) = face.tokenise([(asked.prompt, asked.rival)])
            row[f"pre_{other}"] = plain.nll(plain.logits(face, rival), rival)
            row[other] = plain.nll(plain.logits(face, rival, weights), rival)
        rows.append(row)
    return rows


def fine_tuning(setup: Setup) -> list[Contest]:
    """FT, a few steps of it; both sides take as many."""
    face, work = setup.face, setup.work
    cases = material.scored_cases(setup.size, work.rows, bystanders=0)
    editor = ft.Editor(ft.Config(rate=_RATE, steps=work.ft_steps, rows=work.rows))
    sites = face.sites()

    @torch.no_grad()
    def ours(count: int) -> Found:
        edits = editor.edit(face, [case.request() for case in cases[:count]])
        updates = weights_of(edits.patch).updates
        return {site: update.dense_ROI() for site, update in updates.items()}

    def slow(count: int) -> Found:
        rows = [
            _fine_tuned(face, item, sites, work.ft_steps) for item in _edits_of(face, cases[:count])
        ]
        return {site: torch.stack([row[site] for row in rows]) for site in sites}

    return [
        Contest(
            name="ft rows",
            what=f"edits of FT, {work.ft_steps} steps each",
            unit="edits",
            ours=ours,
            plain=slow,
            count=work.rows,
            few=work.few_rows,
            widen=face.model,
        )
    ]


def _fine_tuned(face: Face, item: Encoded, sites: Sequence[str], steps: int) -> dict[str, Tensor]:
    """ΔW of one edit by torch's RMSprop on copies of the edited weights, as O x I."""
    start = plain.weights_of(face, sites)
    weights = {name: w.detach().clone().requires_grad_() for name, w in start.items()}
    optimizer = torch.optim.RMSprop(weights.values(), lr=_RATE)
    for _ in range(steps):
        with torch.enable_grad():
            logits_NV = plain.logits(face, item, weights)
            if logits_NV.argmax(-1).tolist() == item.labels:
                break
            optimizer.zero_grad(set_to_none=True)
            plain.nll(logits_NV, item).backward()
        optimizer.step()
    return {
        site: plain.laid_out(face, site, weights[name].detach() - start[name].detach())
        for site, name in zip(sites, start, strict=True)
    }


def _edits_of(face: Face, cases: Sequence[Case]) -> list[Encoded]:
    return face.tokenise([(case.prompt, case.target_new) for case in cases])


def fact_scoring(setup: Setup) -> list[Contest]:
    """CounterFact's 13 prompts with two targets each; one case at a time, and many at once."""
    face, work = setup.face, setup.work
    cases = material.facts(setup.size, work.cases)
    patch = fact_patch(face, work.layers, len(cases))

    def ours(count: int) -> Found:
        return measured(scoring.score(face, cases[:count], patch, _SCORING, range(count)))

    @torch.no_grad()
    def slow(count: int) -> Found:
        rows: list[dict[str, object]] = []
        for number, case in enumerate(cases[:count]):
            rows += score_one(face, case, _weights(face, patch, number))
        return measured(rows)

    @torch.no_grad()
    def together(count: int) -> Found:
        """What the published evaluation does: a case's prompts with both targets as one batch."""
        rows: list[dict[str, object]] = []
        for number, case in enumerate(cases[:count]):
            rows += _score_case(face, case, _weights(face, patch, number))
        return measured(rows)

    one = Contest(
        name="fact scored",
        what="a CounterFact case scored, 13 prompts × 2 targets, against prompt by prompt",
        unit="cases",
        ours=ours,
        plain=slow,
        count=1,
        few=1,
        goal=2.5,
    )
    batch = Contest(
        name="fact scored, in a batch",
        what="the same, against the case's 26 texts in one batch with all logits",
        unit="cases",
        ours=ours,
        plain=together,
        count=1,
        few=1,
    )
    many = Contest(
        name="facts scored",
        what=f"{work.cases} CounterFact cases scored at once, against prompt by prompt",
        unit="cases",
        ours=ours,
        plain=slow,
        count=work.cases,
        few=1,
    )
    return [one, batch, many]


def fact_patch(face: Face, layers: Sequence[int], rows: int) -> Patch:
    """Rank-one updates of the MLPs' output maps, as MEMIT's are."""
    draws = torch.Generator().manual_seed(0)
    updates = {}
    for layer in layers:
        site = downs(face.model)[layer]
        outputs, inputs = weight_OI(linear_map(face.model, site)).shape
        left = torch.randn(rows, 1, outputs, generator=draws)
        right = torch.randn(rows, 1, inputs, generator=draws) / inputs**0.5
        updates[site] = Factors(left.to(face.device), right.to(face.device))
    return Patch(updates)


def _weights(face: Face, patch: Patch, row: int) -> dict[str, Tensor]:
    return plain.edited(
        face, {site: update.dense_ROI()[row] for site, update in patch.updates.items()}
    )


def _score_case(face: Face, case: Case, weights: Mapping[str, Tensor]) -> list[dict[str, object]]:
    """Both targets of all of a case's prompts in one padded batch, with logits everywhere."""
    asked = list(scoring.questions(case, 0, 0))
    pairs = [(a.prompt, target) for a in asked for target in (a.target, a.rival)]
    items = face.tokenise(pairs)
    before = plain.batch_logits(face, items, None)
    after = plain.batch_logits(face, items, weights)
    rows: list[dict[str, object]] = []
    for number, question in enumerate(asked):
        item, rival = items[2 * number], items[2 * number + 1]
        about_new = question.kind in ("edit", "rephrase")
        own, other = ("nll_new", "nll_true") if about_new else ("nll_true", "nll_new")
        labels = torch.tensor(item.labels, device=face.device)
        rows.append(
            {
                f"pre_{own}": plain.nll(before[2 * number], item),
                own: plain.nll(after[2 * number], item),
                f"pre_{other}": plain.nll(before[2 * number + 1], rival),
                other: plain.nll(after[2 * number + 1], rival),
                "kl": plain.kl(before[2 * number], after[2 * number]),
                "tf_exact": (after[2 * number].argmax(-1) == labels).all(),
            }
        )
    return rows
