"""Free texts: drawn among the likeliest tokens, each on its own luck, before and after an edit."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from cases import make_cases
from conftest import make_face

from pipeline import generation, scoring
from pipeline.editing.patch import Patch, linear_map, weight_OI
from pipeline.editing.updates import Factors
from pipeline.generation import Config
from pipeline.models import Face
from pipeline.models.causal import Causal, _Draw
from pipeline.records import Case

OPENINGS = ("The harbour", "Ada Verrin was born", "Tom")
CONFIG = Config(every=1, tokens=20, seed=3)


def telling(face: Face, count: int = 4) -> list[Case]:
    return [replace(case, generation_prompts=OPENINGS) for case in make_cases(face, count)]


def patch_of(face: Face, edits: int) -> Patch:
    site = face.sites()[-1]
    O, I = weight_OI(linear_map(face.model, site)).shape  # noqa: E741
    draws = torch.Generator().manual_seed(0)
    left, right = (
        torch.randn(edits, 1, O, generator=draws),
        torch.randn(edits, 1, I, generator=draws),
    )
    return Patch({site: Factors(left, right)})


@pytest.mark.parametrize("architecture", ["gpt2", "gpt_neo", "llama", "opt"])
def test_texts_do_not_depend_on_their_batch(architecture: str) -> None:
    face = make_face(architecture)
    asked = generation.openings(face, telling(face), range(4), CONFIG)
    patch = patch_of(face, 4)
    together = generation.write(face, asked, CONFIG, 12, patch)
    single = [generation.write(face, [one], CONFIG, 1, patch)[0] for one in asked]
    assert together == single
    assert together != generation.write(face, asked, CONFIG, 12)
    assert generation.write(face, asked, CONFIG, 12, Patch({})) == generation.write(
        face, asked, CONFIG, 5
    )


def test_prompt_and_text_have_so_many_tokens_together() -> None:
    face = make_face("gpt2")
    assert isinstance(face, Causal)
    config = replace(CONFIG, top_k=1)
    asked = generation.openings(face, telling(face, 1), [0], config)
    for opening, text in zip(asked, generation.write(face, asked, config, 3), strict=True):
        ids = face.tokenizer(opening.prompt, return_tensors="pt")["input_ids"]
        used = ids.shape[1]
        with torch.no_grad():
            while ids.shape[1] < 20:  # the likeliest token but the end, time after time
                last_V = face.model(ids).logits[0, -1]
                last_V[face.tokenizer.eos_token_id] = -torch.inf
                ids = torch.cat([ids, last_V.argmax().view(1, 1)], dim=1)
        assert text == face.tokenizer.decode(ids[0, used:], skip_special_tokens=True)


def test_a_number_chooses_among_the_likeliest() -> None:
    scores = torch.tensor([[0.4, 0.1, 0.3, 0.2]]).log().repeat(6, 1)
    # Of the three likeliest: 4/9 for token 0, 3/9 for token 2, 2/9 for token 3.
    luck = [[0.0], [0.44], [0.45], [0.77], [0.78], [0.9999999]]
    chosen = _Draw([[9]] * 6, luck, 3, [])(torch.zeros(6, 1), scores)
    assert chosen.argmax(-1).tolist() == [0, 0, 2, 2, 3, 3]
    assert torch.isfinite(chosen).sum(-1).tolist() == [1] * 6


def test_a_text_is_in_its_prompt_while_another_is_written() -> None:
    draw = _Draw([[9, 1, 2], [9]], [[0.9], [0.0, 0.9]], 2, [3])
    assert (draw.shared, draw.steps) == (1, 3)
    scores = torch.tensor([[0.2, 0.3, 0.4, 0.9]]).log().repeat(2, 1)
    chosen = [draw(torch.zeros(2, 1), scores).argmax(-1).tolist() for _ in range(3)]
    # The prompt's 1 and 2, then its draw; beside it two draws of (2, 1), never the end, 3.
    assert [row[0] for row in chosen] == [1, 2, 1]
    assert [row[1] for row in chosen][:2] == [2, 1]


def test_which_cases_write_depends_on_their_ids_alone() -> None:
    face = make_face("gpt2")
    cases = telling(face, 40)
    config = Config(every=4)
    some = {o.case.id for o in generation.openings(face, cases, range(40), config)}
    assert 0 < len(some) < 40
    later = generation.openings(face, cases[20:], range(20), config)
    assert {o.case.id for o in later} == some & {case.id for case in cases[20:]}
    assert generation.openings(face, cases, range(40), replace(config, every=0)) == []
    assert len(generation.openings(face, cases[:1], [0], replace(CONFIG, prompts=2))) == 2


def test_scoring_adds_texts_of_both_models() -> None:
    face = make_face("gpt2")
    cases = telling(face, 2)
    config = scoring.Config(rows=7, texts=CONFIG)
    rows = scoring.score(face, cases, patch_of(face, 2), config)
    told = [row for row in rows if row["probe"] == "generation"]
    assert [(r["case_id"], r["index"]) for r in told] == [
        (f"case-{i}", j) for i in range(2) for j in range(3)
    ]
    assert not any(row["collapsed"] for row in told)
    assert any(row["gen_text"] != row["pre_gen_text"] for row in told)
    quiet = scoring.score(face, cases, Patch({}), replace(config, generate=False))
    assert not [row for row in quiet if row["probe"] == "generation"]


def test_other_kinds_of_models_write_no_texts() -> None:
    face = make_face("bart")
    rows = scoring.score(face, telling(face, 1), Patch({}), scoring.Config(texts=CONFIG))
    assert {row["probe"] for row in rows} == {"edit", "rephrase", "neighbour", "unrelated"}
