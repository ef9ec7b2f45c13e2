"""Causal tracing: which hidden states of a language model carry a fact from subject to answer.

The subject's embeddings are corrupted with noise, one state of the clean run is put back, and the
answer's probability tells what that state was worth. Source: the ROME paper (Meng et al. 2022) and
its code: noise of three standard deviations of the subjects' embeddings, ten draws of it, windows
of MLP or attention outputs put back together, and severed runs, in which the position's MLPs (or
attentions) stay as the corrupted run has them while a block's output is put back.

All states of a fact are tried side by side, as rows of one batch; those before the subject are the
same in both runs, and are not tried.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd
import torch
from torch import Tensor

from pipeline.errors import ModelError, SettingsError
from pipeline.mentions import tokens_of
from pipeline.mixing import STATES, Run, State, Tries
from pipeline.models import Encoded, Face
from pipeline.progress import bar
from pipeline.records import Case

ROLES = ("subject_first", "subject_middle", "subject_last", "further", "last")


@dataclass(frozen=True, kw_only=True)
class Config:
    """How facts are traced.

    Attributes:
        source: the benchmark's own cases, or facts made for tracing (`known`: CounterFact's
            known_1000.json, on files that have it).
        facts: at most so many of those that the model knows.
        draws: of the noise, for each fact.
        noise: in standard deviations of the subjects' embeddings.
        window: blocks whose MLP or attention outputs are put back together.
        severed: also put back blocks' outputs with the position's MLPs, or attentions, severed.
        rows: in one forward pass.
    """

    source: Literal["cases", "known"] = "cases"
    facts: int = 1000
    draws: int = 10
    noise: float = 3.0
    window: int = 10
    severed: bool = True
    rows: int = 512

    def __post_init__(self) -> None:
        """Raises SettingsError for numbers that leave nothing to trace."""
        for name in ("facts", "draws", "noise", "window", "rows"):
            if getattr(self, name) <= 0:
                raise SettingsError(
                    expected=f"tracing.{name} above 0",
                    found=str(getattr(self, name)),
                    remedy="Leave it at its default, or give a positive number.",
                )


@dataclass(frozen=True, kw_only=True)
class Fact:
    """A statement that names its subject, and the text that should follow it."""

    id: str
    prompt: str
    subject: str
    target: str


@dataclass(frozen=True)
class Traced:
    """Tables of what was found; how many facts the model knows; the embeddings' sigma.

    `facts`: id, prompt, subject, answer (its first token), p_clean, p_corrupt.
    `states`: id, restored, severed ("" for nothing), layer, position, token, role, p.
    """

    facts: pd.DataFrame
    states: pd.DataFrame
    known: int
    sigma: float


@dataclass(frozen=True)
class _Prompt:
    """A fact as the model reads it: the prompt's tokens, the subject's, and the answer's first."""

    fact: Fact
    ids: list[int]
    subject: range
    answer: int
    tokens: list[str]

    def role(self, position: int) -> str:
        """What a position is in the statement; a subject of one token is its last."""
        if position in self.subject:
            if position == self.subject[-1]:
                return "subject_last"
            return "subject_first" if position == self.subject[0] else "subject_middle"
        return "last" if position == len(self.ids) - 1 else "further"


def facts_of(cases: Sequence[Case], seed: int) -> list[Fact]:
    """What the model was taught of the cases, in an order drawn by seed."""
    facts = [
        Fact(id=case.id, prompt=case.prompt, subject=case.subject, target=case.target_true)
        for case in cases
        if case.split != "correction" and case.subject and case.subject in case.prompt
    ]
    random.Random(f"{seed}/tracing").shuffle(facts)
    return facts


def trace(face: Face, facts: Sequence[Fact], config: Config, seed: int) -> Traced:
    """Trace those of the facts that the model knows: whose answer's first token it gives.

    Raises:
        ModelError: the model is no language model, or knows none of the facts.
        DataError: a fact's prompt does not name its subject.
    """
    if face.kind != "causal":
        raise ModelError(
            expected="a language model to trace",
            found=f"a {face.kind} model",
            remedy="Trace a benchmark whose base model continues text, such as counterfact.",
        )
    prompts = _read(face, facts)
    sigma = _spread(face, prompts)
    known = _known(face, prompts, config.rows)
    if not known:
        raise ModelError(
            expected="at least one fact that the model knows",
            found=f"none of {len(prompts)}",
            remedy="Trace a model that was taught the facts.",
        )
    chosen = bar(known[: config.facts], "trace")
    rows, states = zip(*(_trace_one(face, p, config, sigma, seed) for p in chosen), strict=True)
    whole = pd.concat(states, ignore_index=True)
    return Traced(pd.DataFrame(list(rows)), whole, len(known), sigma)


def _read(face: Face, facts: Sequence[Fact]) -> list[_Prompt]:
    encoded = face.tokenise([(fact.prompt, fact.target) for fact in facts])
    texts = [fact.prompt + fact.target for fact in facts]
    offsets = face.tokenizer(texts, return_offsets_mapping=True)["offset_mapping"]
    return [
        _prompt(face, fact, item, places)
        for fact, item, places in zip(facts, encoded, offsets, strict=True)
    ]


def _prompt(face: Face, fact: Fact, item: Encoded, offsets: Sequence[tuple[int, int]]) -> _Prompt:
    length = item.positions[0] + 1
    ids = item.ids[:length]
    subject = tokens_of(fact.prompt, fact.subject, offsets[:length])
    return _Prompt(fact, ids, subject, item.labels[0], [face.tokenizer.decode([i]) for i in ids])


@torch.no_grad()
def _spread(face: Face, prompts: Sequence[_Prompt]) -> float:
    """Standard deviation of the numbers in the embeddings of all subjects' tokens."""
    ids = [i for prompt in prompts for i in prompt.ids[prompt.subject[0] : prompt.subject[-1] + 1]]
    embed = face.model.get_input_embeddings()
    return float(embed(torch.tensor(ids, device=face.device)).float().std())


@torch.no_grad()
def _known(face: Face, prompts: Sequence[_Prompt], rows: int) -> list[_Prompt]:
    known = []
    for start in range(0, len(prompts), rows):
        part = prompts[start : start + rows]
        batch = face.collate([_ask(prompt) for prompt in part])
        hits = (face.logits(batch).argmax(-1) == batch.label_N).tolist()
        known += [prompt for prompt, hit in zip(part, hits, strict=True) if hit]
    return known


def _ask(prompt: _Prompt) -> Encoded:
    return Encoded(prompt.ids, [len(prompt.ids) - 1], [prompt.answer])


def _trace_one(
    face: Face, prompt: _Prompt, config: Config, sigma: float, seed: int
) -> tuple[dict[str, Any], pd.DataFrame]:
    """A row of the table of facts, and the rows of the table of states."""
    run = Run(face, prompt.ids, prompt.answer, prompt.subject)
    run.corrupt(config.noise * sigma, config.draws, f"{seed}/trace/{prompt.fact.id}")
    places, tries = _plan(run, config)
    p_B = torch.cat([run(tries.part(rows)) for rows in _slices(len(tries), config.rows)])
    p = p_B.view(len(places), config.draws).mean(1)
    frame = pd.DataFrame(places, columns=["restored", "severed", "layer", "position"])
    frame.insert(0, "id", prompt.fact.id)
    frame["token"] = [prompt.tokens[i] for i in frame["position"]]
    frame["role"] = [prompt.role(i) for i in frame["position"]]
    frame["p"] = p.tolist()
    fact = {
        "id": prompt.fact.id,
        "prompt": prompt.fact.prompt,
        "subject": prompt.fact.subject,
        "answer": face.tokenizer.decode([prompt.answer]),
        "p_clean": run.p_clean,
        "p_corrupt": run.p_corrupt,
    }
    return fact, frame


def _slices(total: int, size: int) -> Iterator[slice]:
    return (slice(start, start + size) for start in range(0, total, size))


def _plan(run: Run, config: Config) -> tuple[list[tuple[str, str, int, int]], Tries]:
    """Every state of every block at every position, each under every draw of the noise."""
    modes: list[tuple[State, State | None]] = [(state, None) for state in STATES]
    if config.severed:
        modes += [("block", "mlp"), ("block", "attention")]
    cells = [
        (*mode, layer, at)
        for mode in modes
        for layer in range(run.layers)
        for at in run.positions[run.subject[0] :]
    ]
    spans = [
        (layer, layer + 1) if state == "block" else window(layer, config.window, run.layers)
        for state, _, layer, _ in cells
    ]

    def column(values: Sequence[int]) -> Tensor:
        return torch.tensor(values).repeat_interleave(config.draws)

    tries = Tries(
        draw_B=torch.arange(config.draws).repeat(len(cells)),
        state_B=column([STATES.index(state) for state, *_ in cells]),
        first_B=column([first for first, _ in spans]),
        end_B=column([end for _, end in spans]),
        severed_B=column([-1 if cut is None else STATES.index(cut) for _, cut, *_ in cells]),
        at_BT=column([at for *_, at in cells])[:, None] == torch.arange(len(run.positions)),
    )
    return [(state, cut or "", layer, at) for state, cut, layer, at in cells], tries


def window(layer: int, width: int, layers: int) -> tuple[int, int]:
    """The blocks around one, as the reference counts them: first, and one past the last."""
    return max(0, layer - width // 2), min(layers, layer - (-width // 2))
