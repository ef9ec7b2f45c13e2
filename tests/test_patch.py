"""Patches: rows equal singles, undo is exact, factors equal dense, files survive."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from conftest import make_face, pairs_for
from torch import nn
from transformers.pytorch_utils import Conv1D

from pipeline.editing.patch import Patch, applied, join, linear_map, merge, weight_OI
from pipeline.editing.patch_file import load_patch, save_patch
from pipeline.editing.updates import Dense, Factors
from pipeline.errors import DataError, EditorError, ModelError
from pipeline.models import Face


def random_patch(face: Face, rows: int, terms: int = 2, seed: int = 0) -> Patch:
    """Factors at every default site."""
    draws = torch.Generator().manual_seed(seed)
    updates = {}
    for site in face.sites():
        outputs, inputs = weight_OI(linear_map(face.model, site)).shape
        updates[site] = Factors(
            torch.randn(rows, terms, outputs, generator=draws) / 4,
            torch.randn(rows, terms, inputs, generator=draws) / 4,
        )
    return Patch(updates)


def test_rows_equal_singles(face: Face) -> None:
    pairs = pairs_for(face)
    patch = random_patch(face, rows=len(pairs))
    with applied(face.model, patch), torch.no_grad():
        together = face.logits(face.encode(pairs))
    alone = []
    for row, pair in enumerate(pairs):
        with applied(face.model, patch, torch.tensor([row])), torch.no_grad():
            alone.append(face.logits(face.encode([pair])))
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-5, rtol=1e-5)


def test_rows_choose_their_edit(face: Face) -> None:
    pairs = pairs_for(face)[:1] * 3
    patch = random_patch(face, rows=2)
    batch = face.encode(pairs)
    with applied(face.model, patch, torch.tensor([1, 0, 1])), torch.no_grad():
        rows = face.logits(batch).reshape(3, -1)
    torch.testing.assert_close(rows[0], rows[2])
    assert not torch.allclose(rows[0], rows[1])


def test_dense_edits_reach_their_runs_of_rows() -> None:
    """Beams and flattened tokens included: two leading rows of the module for each input row."""
    draws = torch.Generator().manual_seed(0)
    module = nn.ModuleDict({"map": nn.Linear(3, 2, bias=False)})
    weight_OI = module["map"].get_parameter("weight")
    delta_ROI = torch.randn(3, 2, 3, generator=draws)
    edits = [2, 2, 0, 1, 1, 2]
    x = torch.randn(12, 5, 3, generator=draws)
    with applied(module, Patch({"map": Dense(delta_ROI)}), torch.tensor(edits)):
        found = module["map"](x)
    for row, answer in enumerate(found):
        expected = x[row] @ (weight_OI + delta_ROI[edits[row // 2]]).T
        torch.testing.assert_close(answer, expected)


def test_leaving_gives_back_the_same_bits(face: Face) -> None:
    batch = face.encode(pairs_for(face))
    with torch.no_grad():
        before = face.logits(batch)
        with applied(face.model, random_patch(face, rows=4)):
            inside = face.logits(batch)
        after = face.logits(batch)
    assert torch.equal(before, after)
    assert not torch.allclose(before, inside)


def test_dense_and_merged_weights_say_the_same(face: Face) -> None:
    batch = face.encode(pairs_for(face))
    patch = random_patch(face, rows=1)
    dense = Patch({site: Dense(u.dense_ROI()) for site, u in patch.updates.items()})
    with torch.no_grad():
        with applied(face.model, patch):
            by_factors = face.logits(batch)
        with applied(face.model, dense):
            by_delta = face.logits(batch)
        lost = merge(face.model, patch)
        merged = face.logits(batch)
    torch.testing.assert_close(by_factors, by_delta, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(by_factors, merged, atol=1e-4, rtol=1e-4)
    # Only an update below half a unit in the last place of its weight may be lost in float32.
    assert max(lost.values()) < 1e-2


def test_generation_sees_each_rows_edit() -> None:
    for architecture in ("gpt2", "opt", "bart"):
        face = make_face(architecture)
        prompts = [prompt for prompt, _ in pairs_for(face)]
        patch = random_patch(face, rows=4)
        with applied(face.model, patch):
            together = face.write(prompts, [4] * 4)
        for row, prompt in enumerate(prompts):
            with applied(face.model, patch, torch.tensor([row])):
                assert face.write([prompt], [4]) == [together[row]]


def test_beams_see_their_rows_edit() -> None:
    face = make_face("bart")
    prompts = [prompt for prompt, _ in pairs_for(face)][:2]
    patch = random_patch(face, rows=2)
    with applied(face.model, patch):
        together = face.beams(prompts, 4, beams=3)  # type: ignore[attr-defined]
    with applied(face.model, patch, torch.tensor([1])):
        assert face.beams(prompts[1:], 4, beams=3) == together[1:]  # type: ignore[attr-defined]


@pytest.mark.parametrize("terms", [1, 40])
def test_join_sums_edits_by_hand(terms: int) -> None:
    draws = torch.Generator().manual_seed(1)
    left = torch.randn(3, terms, 4, generator=draws)
    right = torch.randn(3, terms, 6, generator=draws)
    joined = join(Patch({"site": Factors(left, right)})).updates["site"]
    # 3 * 40 terms of 4 + 6 numbers are more than 4 * 6; 3 * 1 of them are not... but 3 > 2.4.
    assert isinstance(joined, Dense)
    expected = sum(left[r].T @ right[r] for r in range(3))
    torch.testing.assert_close(joined.delta_ROI[0], expected)


def test_join_keeps_factors_while_they_are_smaller() -> None:
    draws = torch.Generator().manual_seed(1)
    patch = Patch(
        {
            "site": Factors(
                torch.randn(3, 2, 40, generator=draws), torch.randn(3, 2, 60, generator=draws)
            )
        }
    )
    joined = join(patch).updates["site"]
    assert isinstance(joined, Factors)
    assert joined.left_RKO.shape == (1, 6, 40)
    torch.testing.assert_close(joined.dense_ROI()[0], patch.updates["site"].dense_ROI().sum(0))


def test_conv1d_and_its_linear_twin_take_the_same_update() -> None:
    conv, linear = Conv1D(5, 3), nn.Linear(3, 5)
    linear.weight.data = conv.weight.data.T.clone()
    linear.bias.data = conv.bias.data.clone()
    update = Factors(torch.ones(1, 1, 5), torch.tensor([[[1.0, 2.0, 3.0]]]))
    x = torch.eye(3)[None]
    answers = []
    for module in (nn.ModuleDict({"map": conv}), nn.ModuleDict({"map": linear})):
        with applied(module, Patch({"map": update})):
            answers.append(module["map"](x))
        merge(module, Patch({"map": update}))
        answers.append(module["map"](x))
    for answer in answers[1:]:
        torch.testing.assert_close(answer, answers[0])


def test_merge_in_bfloat16_counts_what_rounding_lost() -> None:
    linear = nn.ModuleDict({"map": nn.Linear(2, 2, bias=False)})
    linear["map"].weight.data = torch.ones(2, 2, dtype=torch.bfloat16)
    delta = torch.tensor([[[1.0, 1e-5], [1e-5, 0.0]]])  # bfloat16 steps by 1/128 above 1
    assert merge(linear, Patch({"map": Dense(delta)})) == {"map": pytest.approx(2 / 3)}


def test_saved_patch_loads_the_same(tmp_path: Path) -> None:
    face = make_face("gpt2")
    patch = random_patch(face, rows=2)
    patch = Patch({**patch.updates, face.sites()[0]: Dense(torch.randn(2, 64, 16))})
    save_patch(patch, tmp_path / "edit.safetensors", {"why": "test"})
    loaded, metadata = load_patch(tmp_path / "edit.safetensors")
    assert metadata == {"why": "test"}
    assert set(loaded.updates) == set(patch.updates)
    for site, update in patch.updates.items():
        assert torch.equal(loaded.updates[site].dense_ROI(), update.dense_ROI())


def test_corrupted_patch_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "edit.safetensors"
    save_patch(random_patch(make_face("gpt2"), rows=1), path)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DataError, match=re.escape(str(path))):
        load_patch(path)
    with pytest.raises(DataError, match="missing"):
        load_patch(tmp_path / "none")


def test_foreign_safetensors_is_no_patch(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"x": torch.zeros(1)}, tmp_path / "x.safetensors")
    with pytest.raises(EditorError, match="errata-patch-1"):
        load_patch(tmp_path / "x.safetensors")


def test_wrong_sites_and_rows_are_named() -> None:
    face = make_face("gpt2")
    batch = face.encode(pairs_for(face)[:3])
    with (
        pytest.raises(ModelError, match=r"nowhere.*none"),
        applied(face.model, Patch({"nowhere": Dense(torch.zeros(1, 1, 1))})),
    ):
        pass
    with (
        pytest.raises(ModelError, match=r"transformer\.h.*linear|Conv1D"),
        applied(face.model, Patch({"transformer.h": Dense(torch.zeros(1, 1, 1))})),
    ):
        pass
    with (
        pytest.raises(ModelError, match="multiple of 2 rows"),
        applied(face.model, random_patch(face, rows=2)),
    ):
        face.logits(batch)


def test_backward_must_run_inside() -> None:
    face = make_face("gpt2")
    patch = random_patch(face, rows=1)
    for update in patch.updates.values():
        assert isinstance(update, Factors)
        update.left_RKO.requires_grad_()
    with applied(face.model, patch):
        loss = face.logits(face.encode(pairs_for(face))).sum()
    with pytest.raises(AssertionError, match="after its edit was taken off"):
        loss.backward()
