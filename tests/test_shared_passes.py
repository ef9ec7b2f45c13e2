"""Passes that share their beginning say what passes of their own say."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from conftest import make_face, pairs_for
from torch import Tensor
from torch.nn import functional as F

from pipeline import measures
from pipeline.editing.patch import Patch, applied, linear_map, weight_OI
from pipeline.editing.pooling import Heard, listening
from pipeline.editing.updates import Factors
from pipeline.models import Batch, Face, forks
from pipeline.models.layouts import blocks
from pipeline.models.lower import Lower

CAUSAL = ("gpt2", "gpt_neo", "llama", "opt")


def patch_of(face: Face, blocks: int, rows: int) -> Patch:
    draws = torch.Generator().manual_seed(1)
    updates = {}
    for site in face.sites("mlp", blocks):
        outputs, inputs = weight_OI(linear_map(face.model, site)).shape
        left = 0.3 * torch.randn(rows, 2, outputs, generator=draws)
        updates[site] = Factors(left, 0.3 * torch.randn(rows, 2, inputs, generator=draws))
    return Patch(updates)


@pytest.mark.parametrize("blocks", [1, 2, 3])
def test_a_pass_that_begins_above_equals_a_whole_one(face: Face, blocks: int) -> None:
    batch = face.encode(pairs_for(face))
    patch = patch_of(face, blocks, batch.rows)
    with applied(face.model, patch):
        whole_NV = face.logits(batch)
    lower = Lower(face.model, patch.updates)
    with lower.kept():
        before_NV = face.logits(batch)
    with applied(face.model, patch), lower.reused():
        above_NV = face.logits(batch)
    assert not torch.allclose(before_NV, above_NV, atol=1e-3)
    torch.testing.assert_close(above_NV, whole_NV)
    torch.testing.assert_close(face.logits(batch), before_NV)  # nothing is left behind


def test_blocks_below_the_first_edited_one_do_not_run_again() -> None:
    face, seen = make_face("gpt2"), []
    for number, block in enumerate(face.model.transformer.h):
        block.ln_1.register_forward_hook(lambda *_args, number=number: seen.append(number))
    lower = Lower(face.model, ["transformer.h.1.mlp.c_proj", "transformer.h.2.mlp.c_fc"])
    batch = face.encode(pairs_for(face))
    with lower.kept():
        face.logits(batch)
    with lower.reused():
        face.logits(batch)
    assert seen == [0, 1, 2, 1, 2]


def test_nothing_is_shared_below_a_site_of_unknown_depth() -> None:
    model = make_face("gpt2").model
    assert Lower(model, ["lm_head", "transformer.h.2.mlp.c_fc"]).stacks == []
    assert Lower(model, []).stacks == []


def test_an_unedited_encoder_is_shared() -> None:
    model = make_face("bart").model
    blocks = [f"model.encoder.layers.{number}" for number in range(3)]
    assert Lower(model, ["model.decoder.layers.0.fc1"]).stacks == [tuple(blocks)]


def test_gradients_reach_the_kept_pass() -> None:
    """As ENN needs, which trains the blocks below too."""
    face = make_face("gpt2")
    face.model.requires_grad_(True)
    batch = face.encode(pairs_for(face))
    weight = face.model.transformer.h[0].mlp.c_fc.weight

    def gradient(logits_NV: Tensor) -> Tensor:
        return torch.autograd.grad(logits_NV.square().sum(), weight)[0]

    lower = Lower(face.model, ["transformer.h.2.mlp.c_fc"])
    with lower.kept():
        face.logits(batch)
    with lower.reused():
        shared = gradient(face.logits(batch))
    torch.testing.assert_close(shared, gradient(face.logits(batch)))


@pytest.mark.parametrize("packed", [True, False])
def test_two_endings_of_a_text_are_read_as_two_texts(face: Face, packed: bool) -> None:
    """Of unequal length, alike in part, one within the other, and with none."""
    if face.kind == "classifier":
        firsts, seconds = ["true", "false", "true", "false"], ["false", "true", None, "true"]
    else:
        firsts = [" Oslo", " the old guild", " Lisbon town", " was built by a guild"]
        seconds = [" the old town", " the railway", None, " was built"]
    prompts = [prompt for prompt, _ in pairs_for(face)]
    first = list(zip(prompts, firsts, strict=True))
    second = [(p, s) for p, s in zip(prompts, seconds, strict=True) if s is not None]
    other = iter(face.tokenise(second))
    found = forks.collate(
        face,
        face.tokenise(first),
        [None if text is None else next(other) for text in seconds],
        packed=packed,
    )
    one_NV, two_NV = found.split(face.logits(found.whole))
    for pairs, part, logits_NV in ((first, found.first, one_NV), (second, found.second, two_NV)):
        alone = face.encode(pairs)
        torch.testing.assert_close(logits_NV, face.logits(alone), atol=1e-4, rtol=1e-4)
        assert torch.equal(part.label_N, alone.label_N)
        assert torch.equal(part.row_N, alone.row_N)
        assert part.rows == alone.rows


@pytest.mark.parametrize("architecture", CAUSAL)
def test_a_prompt_with_two_endings_is_one_row(architecture: str) -> None:
    """No longer than the prompt where both targets are one token."""
    face = make_face(architecture)
    one = face.tokenise([("Tom Asker works for", " the")])
    two = [replace(one[0], ids=[*one[0].ids[:-1], 7], labels=[7])]
    found = forks.collate(face, one, two, packed=True)
    assert found.whole.inputs["input_ids"].shape == (1, len(one[0].ids) - 1)
    logits_NV = face.logits(found.whole)
    torch.testing.assert_close(logits_NV[0], logits_NV[1])


def test_a_row_longer_than_a_sliding_window_is_not_packed() -> None:
    face = make_face("gpt_neo")
    face.model.config.window_size = 4
    pairs = [("Tom Asker works for", " the"), ("Tom Asker works for", " Lisbon")]
    one, two = face.tokenise(pairs)
    assert forks.collate(face, [one], [two], packed=True).whole.rows == 2


@pytest.mark.parametrize("chunk", [1, 40, 2**22])
def test_the_divergence_and_its_slope_in_parts(monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    """Against torch's own, whose graph keeps every step."""
    monkeypatch.setattr(measures, "_CHUNK", chunk)
    draws = torch.Generator().manual_seed(0)
    before, after = (torch.randn(5, 11, generator=draws, dtype=torch.float64) for _ in range(2))
    after.requires_grad_(True)
    row_N = torch.tensor([0, 0, 0, 1, 1])
    batch = Batch({}, row_N, row_N, row_N, 2)
    found_B = measures.kl(before, after, batch)
    each_N = F.kl_div(after.log_softmax(-1), before.softmax(-1), reduction="none").sum(-1)
    wanted_B = torch.stack([each_N[:3].mean(), each_N[3:].mean()])
    torch.testing.assert_close(found_B, wanted_B)
    (slope,) = torch.autograd.grad(found_B[0] + 2 * found_B[1], after)
    (wanted,) = torch.autograd.grad(wanted_B[0] + 2 * wanted_B[1], after)
    torch.testing.assert_close(slope, wanted)
    with torch.no_grad():
        torch.testing.assert_close(measures.kl(before, after, batch), wanted_B)


def test_a_classifiers_last_mlp_sees_the_token_that_is_read() -> None:
    face = make_face("bert")
    batch = face.encode(pairs_for(face))
    block = face.model.get_submodule(blocks(face.model)[-1])
    widths: list[int] = []
    note = block.get_submodule("intermediate").register_forward_hook(
        lambda _module, inputs, _output: widths.append(inputs[0].shape[1])
    )
    found_NV = face.logits(batch)
    plain_B1 = face.model(**batch.inputs).logits
    heard: list[Heard] = []
    with listening(face.model, heard.append):
        face.logits(batch)
    note.remove()
    whole = batch.inputs["input_ids"].shape[1]
    assert widths == [1, whole, whole], "whoever takes the mean of all tokens has them all"
    torch.testing.assert_close(found_NV[:, 1:], plain_B1, rtol=1e-6, atol=1e-6)
    assert not block.get_submodule("attention")._forward_hooks
