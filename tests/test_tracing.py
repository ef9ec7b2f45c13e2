"""Causal tracing: nothing put back is the corrupted run, everything is the clean one."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
import pytest
import torch
from conftest import make_face
from torch import Tensor

from pipeline import tracing
from pipeline.errors import DataError, ModelError, SettingsError
from pipeline.mentions import tokens_of
from pipeline.mixing import STATES, Run, Tries, sites_of
from pipeline.models import Face
from pipeline.tracing import Config, Fact

CAUSAL = ("gpt2", "gpt_neo", "llama", "opt")
CONFIG = Config(draws=3, window=2, rows=40)
PROMPTS = ("Ada Verrin was born in", "The harbour was built by", "Tom Asker works for the")
SUBJECTS = ("Ada Verrin", "harbour", "Tom Asker")


def knowing(architecture: str) -> tuple[Face, list[Fact]]:
    """A random model, and statements with the answers that it gives, each a token of its own."""
    for seed in range(50):
        face = make_face(architecture, seed)
        facts = []
        for prompt, subject in zip(PROMPTS, SUBJECTS, strict=True):
            ids = face.tokenizer(prompt)["input_ids"]
            with torch.no_grad():
                best = int(face.model(torch.tensor([ids])).logits[0, -1].argmax())
            text = face.tokenizer.decode(best)
            if face.tokenizer(prompt + text)["input_ids"] == [*ids, best]:
                facts.append(Fact(id=prompt, prompt=prompt, subject=subject, target=text))
        if len(facts) == len(PROMPTS):
            return face, facts
    raise AssertionError("no such model")


def corrupted(face: Face, draws: int = 3) -> Run:
    ids = face.tokenizer(PROMPTS[0])["input_ids"]
    run = Run(face, ids, 7, range(1, 4))
    run.corrupt(0.5, draws, "seed")
    return run


def tries(run: Run, state: str | None, cut: str | None, at: list[int], draws: int = 3) -> Tries:
    """The same in every draw: a state of all blocks put back, another severed."""

    def number(name: str | None) -> Tensor:
        return torch.full((draws,), -1 if name is None else STATES.index(name))  # type: ignore[arg-type]

    places = torch.tensor([i in at for i in run.positions]).expand(draws, -1)
    blocks = torch.zeros(draws).long()
    return Tries(
        torch.arange(draws), number(state), blocks, blocks + run.layers, number(cut), places
    )


@pytest.mark.parametrize("architecture", CAUSAL)
def test_nothing_everything_and_the_last_state(architecture: str) -> None:
    run = corrupted(make_face(architecture))
    everywhere = list(run.positions)
    assert run.p_clean != pytest.approx(run.p_corrupt, rel=1e-3)
    for cut in (None, "mlp", "attention"):  # held at what they are anyway
        alone = run(tries(run, None, cut, everywhere)).mean()
        assert alone == pytest.approx(run.p_corrupt, rel=1e-5)
    whole = run(tries(run, "block", None, everywhere))
    assert whole.tolist() == pytest.approx([run.p_clean] * 3, rel=1e-5)
    # The answer is read off the last block's last state.
    end = run(tries(run, "block", None, everywhere[-1:]))
    assert end.tolist() == pytest.approx([run.p_clean] * 3, rel=1e-5)
    nowhere = run(tries(run, "block", None, []))
    assert nowhere.mean() == pytest.approx(run.p_corrupt, rel=1e-5)


@pytest.mark.parametrize("architecture", CAUSAL)
def test_many_at_once_equal_one_at_a_time(architecture: str) -> None:
    face, facts = knowing(architecture)
    facts = facts[2:]
    together = tracing.trace(face, facts, replace(CONFIG, draws=1, rows=1000), 0)
    single = tracing.trace(face, facts, replace(CONFIG, draws=1, rows=1), 0)
    assert together.states["p"].to_numpy() == pytest.approx(single.states["p"].to_numpy(), rel=1e-4)
    keys = ["restored", "severed", "layer", "position"]
    assert not together.states.duplicated(keys).any()
    layers, positions = 3, together.states["position"].nunique()
    assert len(together.states) == 5 * layers * positions


def by_hand(face: Face, ids: list[int], noise_TD: Tensor, put: dict[str, Tensor]) -> Tensor:
    """GPT-2's own arithmetic, block by block, with some outputs replaced: logits of the last."""
    body = face.model.transformer
    x = body.wte(torch.tensor([ids])) + noise_TD + body.wpe(torch.arange(len(ids)))
    ahead = torch.full((1, 1, len(ids), len(ids)), -torch.inf).triu(1)
    for layer, block in enumerate(body.h):
        mixed = block.attn(block.ln_1(x), attention_mask=ahead)[0]
        x = x + mixed
        hidden = block.mlp(block.ln_2(x))
        if f"mlp {layer}" in put:
            hidden[0, 3] = put[f"mlp {layer}"]
        x = x + hidden
        put.setdefault(f"seen mlp {layer}", hidden[0, 3])
        if f"block {layer}" in put:
            x = x.clone()
            x[0, 3] = put[f"block {layer}"]
        put.setdefault(f"seen block {layer}", x[0, 3])
    return face.model.lm_head(body.ln_f(x))[0, -1]


@torch.no_grad()
def test_severed_mlps_by_hand() -> None:
    """Block 0's clean state at position 3, with MLPs there as in the corrupted run."""
    face = make_face("gpt2")
    run = corrupted(face, draws=1)
    ids = face.tokenizer(PROMPTS[0])["input_ids"]
    noise_TD = run._noise_STD[0]
    clean: dict[str, Tensor] = {}
    broken: dict[str, Tensor] = {}
    p = by_hand(face, ids, torch.zeros_like(noise_TD), clean).softmax(-1)[7]
    assert run.p_clean == pytest.approx(p.item(), rel=1e-5)
    p = by_hand(face, ids, noise_TD, broken).softmax(-1)[7]
    assert run.p_corrupt == pytest.approx(p.item(), rel=1e-5)
    held = {f"mlp {layer}": broken[f"seen mlp {layer}"] for layer in range(3)}
    put = {"block 0": clean["seen block 0"]}
    plan = tries(run, "block", "mlp", [3], 1)
    severed = replace(plan, end_B=torch.ones(1).long())
    for asked, expected in (
        (severed, held | put),
        (replace(severed, severed_B=-plan.draw_B - 1), put),
    ):
        p = by_hand(face, ids, noise_TD, dict(expected)).softmax(-1)[7]
        assert run(asked).item() == pytest.approx(p.item(), rel=1e-5)


def test_windows_are_those_of_the_reference() -> None:
    assert [tracing.window(layer, 10, 48) for layer in (0, 17, 47)] == [(0, 5), (12, 22), (42, 48)]
    assert [tracing.window(layer, 1, 3) for layer in range(3)] == [(0, 1), (1, 2), (2, 3)]


def test_sigma_is_that_of_the_subjects_embeddings() -> None:
    face, facts = knowing("gpt2")
    pieces = [face.tokenizer(subject)["input_ids"] for subject in SUBJECTS]
    rows = face.model.transformer.wte.weight[[i for ids in pieces for i in ids]]
    assert tracing.trace(face, facts, CONFIG, 0).sigma == pytest.approx(float(rows.std()))


def test_tables_name_tokens_roles_and_only_known_facts() -> None:
    face, facts = knowing("gpt2")
    unknown = replace(facts[0], id="unknown", target=" Lisbon")
    found = tracing.trace(face, [unknown, *facts], replace(CONFIG, severed=False), 0)
    assert list(found.facts["id"]) == list(PROMPTS)
    assert set(found.states["restored"]) == {"block", "mlp", "attention"}
    one = found.states[(found.states["id"] == PROMPTS[1]) & (found.states["layer"] == 0)]
    one = one[one["restored"] == "block"]
    text = "".join(one["token"])
    assert (
        text.strip() == "harbour was built by"
    )  # what stands before the subject is the same anyway
    roles = one["role"].tolist()
    assert roles[-1] == "last"
    assert set(roles) == {"subject_first", "subject_middle", "subject_last", "further", "last"}
    last = found.states[(found.states["role"] == "last") & (found.states["layer"] == 2)]
    clean = found.facts.set_index("id")["p_clean"]
    block = last[last["restored"] == "block"].set_index("id")["p"]
    pd.testing.assert_series_equal(block.sort_index(), clean.sort_index(), check_names=False)
    assert tracing.trace(face, facts, replace(CONFIG, facts=2), 0).facts.shape[0] == 2


def test_same_seed_same_noise_whatever_else_is_traced() -> None:
    face, facts = knowing("gpt2")
    whole = tracing.trace(face, facts, CONFIG, 5)
    other = tracing.trace(face, facts, CONFIG, 6)
    assert whole.facts["p_corrupt"].tolist() != other.facts["p_corrupt"].tolist()
    again = tracing.trace(face, facts[::-1], CONFIG, 5)
    a, b = (t.facts.set_index("id")["p_corrupt"].sort_index() for t in (whole, again))
    assert a.to_numpy() == pytest.approx(b.to_numpy(), rel=1e-5)


def test_subjects_are_found_by_characters() -> None:
    offsets = [(0, 3), (3, 7), (7, 12), (12, 13)]
    assert tokens_of("The Ada Bell.", "Ada Bell", offsets) == range(1, 3)
    assert tokens_of("Ada or Ada", "Ada", [(0, 3), (3, 6), (6, 10)]) == range(2, 3)
    with pytest.raises(DataError, match="the subject 'Tom' in the prompt"):
        tokens_of("The Ada Bell.", "Tom", offsets)


def test_what_cannot_be_traced_is_refused() -> None:
    with pytest.raises(ModelError, match="a language model to trace"):
        tracing.trace(make_face("bart"), [], CONFIG, 0)
    face, facts = knowing("gpt2")
    wrong = [replace(fact, target=" Lisbon") for fact in facts]
    with pytest.raises(ModelError, match="none of 3"):
        tracing.trace(face, wrong, CONFIG, 0)
    with pytest.raises(SettingsError, match=r"tracing\.draws above 0"):
        Config(draws=0)


def test_every_site_is_a_module() -> None:
    for architecture in CAUSAL:
        face = make_face(architecture)
        sites = sites_of(face)
        assert len(sites) == 9
        assert all(face.model.get_submodule(name) is not None for name in sites.values())
