"""ROME: rank one, its constraint, its formula, and edits one after another."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from architectures import CAUSAL, linear_twin, make_causal, moments_of, requests

from pipeline.editing import locate
from pipeline.editing.patch import Patch, applied, linear_map, merge, weight_OI, weights_of
from pipeline.editors import rome
from pipeline.errors import EditorError
from pipeline.models import Face, face_of
from pipeline.models.layouts import downs

SMALL = {"layer": 1, "steps": 6, "contexts": "opened"}


def editor_for(name: str, **changes: object) -> rome.Editor:
    editor = rome.Editor(rome.Config(**{**SMALL, **changes}))  # type: ignore[arg-type]
    editor.take(moments_of(name))
    return editor


def keys(face: Face, name: str) -> tuple[torch.Tensor, torch.Tensor]:
    """The key of each prompt alone, and the mean over its contexts."""
    texts = locate.spots(face, requests(), moments_of(name).contexts["opened"])
    site = downs(face.model)[1]
    key = locate.read(face, [s for found in texts for s in found], [site]).key_BI[site]
    return key.unflatten(0, (4, -1))[:, 0], key.unflatten(0, (4, -1)).mean(1)


@pytest.mark.parametrize("name", CAUSAL)
def test_an_edit_has_rank_one_and_gives_the_value_for_the_key(name: str) -> None:
    """Ŵ k* is v*: what the prompt's own key gave, and the change that was sought for it."""
    face = make_causal(name)
    editor, site = editor_for(name), downs(face.model)[1]
    edits = editor.edit(face, requests())
    values = found_values(editor, face)
    bare, mean = keys(face, name)
    weight = weight_OI(linear_map(face.model, site))
    inverse = torch.linalg.inv(moments_of(name).of(site))
    (update,) = weights_of(edits.patch).updates.values()
    for row, delta in enumerate(update.dense_ROI()):
        sizes = torch.linalg.svdvals(delta)
        assert sizes[1] < 1e-10 * sizes[0]
        moved = (weight + delta) @ mean[row] - weight @ bare[row]
        # The right factor is C⁻¹k*, so an update is its own left factor times that.
        u = inverse @ mean[row]
        dense = torch.outer(delta @ mean[row], u) / (u @ mean[row])
        torch.testing.assert_close(delta, dense, atol=1e-4, rtol=1e-4)
        assert values[row].norm() > 0.1
        torch.testing.assert_close(moved, values[row], atol=1e-8, rtol=1e-8)


def found_values(editor: rome.Editor, face: Face) -> torch.Tensor:
    """The changes that the search finds for the edits."""
    assert editor.moments is not None
    texts = locate.spots(face, requests(), editor.moments.contexts["opened"])
    site = downs(face.model)[1]
    bare = locate.read(face, [found[0] for found in texts], [site]).key_BI[site]
    present = linear_map(face.model, site)(bare)
    return editor._search(face, requests(), texts, present, Patch({})).delta_GD


def test_the_published_code_meets_its_value_at_the_bare_key() -> None:
    face = make_causal("gpt2")
    editor = editor_for("gpt2", consistent_keys=False)
    site = downs(face.model)[1]
    deltas = weights_of(editor.edit(face, requests()).patch).updates[site].dense_ROI()
    bare, mean = keys(face, "gpt2")
    values = found_values(editor, face)
    for row, delta in enumerate(deltas):
        torch.testing.assert_close(delta @ bare[row], values[row], atol=1e-8, rtol=1e-8)
        assert not torch.allclose(delta @ bare[row], delta @ mean[row], atol=1e-3)


def test_edits_of_a_row_follow_each_other() -> None:
    """Each is made on the model with the ones before it written into the weights."""
    face = make_causal("gpt2")
    editor = editor_for("gpt2")
    together = weights_of(editor.edit(face, requests(), k=2).patch)
    site = downs(face.model)[1]
    for row, pair in enumerate((requests()[:2], requests()[2:])):
        twin = face_of(copy.deepcopy(face.model), face.tokenizer)
        before = weight_OI(linear_map(twin.model, site)).clone()
        for request in pair:
            merge(twin.model, editor.edit(twin, [request]).patch)
        moved = weight_OI(linear_map(twin.model, site)) - before
        found = together.updates[site].dense_ROI()[row]
        torch.testing.assert_close(found, moved, atol=1e-6, rtol=1e-6)
    assert together.rows == 2


def test_conv1d_and_its_linear_twin_get_the_same_update() -> None:
    face = make_causal("gpt2")
    one = weights_of(editor_for("gpt2").edit(face, requests(), k=2).patch).updates
    two = weights_of(editor_for("gpt2").edit(linear_twin(face), requests(), k=2).patch).updates
    for site, update in one.items():
        torch.testing.assert_close(update.dense_ROI(), two[site].dense_ROI(), atol=1e-8, rtol=1e-8)


def test_contradictions_are_refused_or_dropped() -> None:
    face = make_causal("gpt2")
    first, *_, last = requests()
    against = replace(first, prompt="In which town was Ada Verrin born? In", target=" Oslo")
    asked = [first, against, last]
    with pytest.raises(EditorError, match="keep_first or keep_last"):
        editor_for("gpt2").edit(face, asked, k=3)
    editor_for("gpt2").edit(face, asked)  # apart, they do not meet
    for how, kept in (("keep_first", [first, last]), ("keep_last", [against, last])):
        found = editor_for("gpt2", conflicts=how).edit(face, asked, k=3)
        alone = editor_for("gpt2").edit(face, kept, k=2)
        assert (found.steps, found.stopped_early) == (alone.steps, alone.stopped_early)
        for site, update in weights_of(found.patch).updates.items():
            torch.testing.assert_close(
                update.dense_ROI(),
                weights_of(alone.patch).updates[site].dense_ROI(),
                atol=1e-8,
                rtol=1e-8,
            )


def test_gemma_2_normalises_what_it_writes_and_is_edited_all_the_same() -> None:
    """The value is sought where the map writes, so what follows it makes no difference."""
    face = make_causal("gemma2")
    batch = face.encode([(r.prompt, r.target) for r in requests()])
    before = face.logits(batch)
    editor = editor_for("gemma2")
    with applied(face.model, editor.edit(face, requests()).patch):
        assert not torch.allclose(before, face.logits(batch))


def test_what_it_cannot_edit_is_refused_with_the_reason() -> None:
    face = make_causal("gpt2")
    unknown = rome.Editor(rome.Config())
    assert "no layers are published for gpt2 of 3 blocks" in (unknown.applies_to(face) or "")
    with pytest.raises(EditorError, match="other layers"):
        unknown.edit(face, requests())
    assert "there is no block 7" in (rome.Editor(rome.Config(layer=7)).applies_to(face) or "")
