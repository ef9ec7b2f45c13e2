"""MEMIT: its normal equations, how blocks share the work, and edits about one subject."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from architectures import CAUSAL, linear_twin, make_causal, moments_of, requests

from pipeline.editing import locate
from pipeline.editing.patch import Patch, weights_of
from pipeline.editors import memit
from pipeline.errors import EditorError, SettingsError
from pipeline.models import Face
from pipeline.models.layouts import blocks, downs
from pipeline.records import Request

SMALL = {"layers": (0, 1), "weight": 3.0, "steps": 6, "ridge": 0.0}


def editor_for(name: str, **changes: object) -> memit.Editor:
    editor = memit.Editor(memit.Config(**{**SMALL, **changes}))  # type: ignore[arg-type]
    editor.take(moments_of(name))
    return editor


def mean_keys(face: Face, name: str, site: str, patch: Patch) -> torch.Tensor:
    """½ of the key alone and ½ of the mean over contexts, as I x E."""
    texts = locate.spots(face, requests(), moments_of(name).contexts["opened"])
    where = [spot for found in texts for spot in found]
    rows = [0] * len(where)
    key = (
        locate.read(face, where, [site], patch=patch, rows_B=rows)
        .key_BI[site]
        .unflatten(0, (4, -1))
    )
    return ((key[:, 0] + key[:, 1:].mean(1)) / 2).T


@pytest.mark.parametrize("name", CAUSAL)
def test_updates_solve_the_least_squares_problem(name: str) -> None:
    """min ‖Δ K - R‖² + λ tr(Δ C Δᵀ), by a dense solver on stacked equations, block by block.

    R is halved for the first block, and measured again under its update for the second.
    """
    face = make_causal(name)
    editor = editor_for(name)
    updates = weights_of(editor.edit(face, requests(), k=4).patch).updates
    bare = [spots[0] for spots in locate.spots(face, requests(), ())]
    last = blocks(face.model)[1]
    texts = locate.spots(face, requests(), moments_of(name).contexts["opened"])
    start = locate.read(face, bare, [], last).stream_BD
    assert start is not None
    found, group = editor._search(face, requests(), texts, start, [True] * 4, 4)
    aim = start + found.delta_GD[group]
    done: dict[str, object] = {}
    for turn, site in enumerate(downs(face.model)[:2]):
        patch = Patch(dict(done))  # type: ignore[arg-type]
        key = mean_keys(face, name, site, patch)
        now = locate.read(face, bare, [], last, patch=patch, rows_B=[0] * 4).stream_BD
        assert now is not None
        residual = (aim - now) / (2 - turn)
        root = torch.linalg.cholesky(moments_of(name).of(site))
        left = torch.cat([key.T, 3.0**0.5 * root.T])
        right = torch.cat([residual, torch.zeros(len(root), 16).double()])
        dense = torch.linalg.lstsq(left, right, driver="gelsd").solution.T
        torch.testing.assert_close(updates[site].dense_ROI()[0], dense, atol=1e-8, rtol=1e-8)
        done[site] = updates[site]


def test_more_edits_than_dimensions_are_solved_the_other_way() -> None:
    """Both forms of the same solution, at the sizes where the code goes from one to the other."""
    editor = editor_for("llama")
    face = make_causal("llama")
    site = downs(face.model)[0]
    second = moments_of("llama").of(site)
    draw = torch.Generator().manual_seed(0)
    for k in (23, 24, 25, 40):
        key = torch.randn(2 * k, 24, generator=draw, dtype=torch.float64)
        found = editor._solve(face, site, key, k).unflatten(0, (2, k))
        for row, part in enumerate(key.unflatten(0, (2, k))):
            wanted = torch.linalg.solve(3.0 * second + part.T @ part, part.T).T
            torch.testing.assert_close(found[row], wanted, atol=1e-8, rtol=1e-6)


def test_one_block_with_little_to_keep_reaches_the_aim() -> None:
    """λ near 0: the stream at the subject's end becomes z, exactly where keys stand alone."""
    face = make_causal("gpt2")
    editor = editor_for("gpt2", layers=(1,), weight=1e-9, contexts="none")
    patch = editor.edit(face, requests(), k=4).patch
    texts = locate.spots(face, requests(), ())
    bare = [spots[0] for spots in texts]
    last = blocks(face.model)[1]
    start = locate.read(face, bare, [], last).stream_BD
    assert start is not None
    found, group = editor._search(face, requests(), texts, start, [True] * 4, 4)
    after = locate.read(face, bare, [], last, patch=patch, rows_B=[0] * 4).stream_BD
    torch.testing.assert_close(after, start + found.delta_GD[group], atol=1e-5, rtol=1e-5)


def test_rows_of_k_edits_are_independent() -> None:
    face = make_causal("gpt2")
    editor = editor_for("gpt2")
    together = weights_of(editor.edit(face, requests(), k=2).patch).updates
    for row in range(2):
        alone = weights_of(editor.edit(face, requests()[2 * row : 2 * row + 2], k=2).patch).updates
        for site, update in alone.items():
            torch.testing.assert_close(
                together[site].dense_ROI()[row], update.dense_ROI()[0], atol=1e-6, rtol=1e-6
            )


def test_conv1d_and_its_linear_twin_get_the_same_update() -> None:
    face = make_causal("gpt2")
    one = weights_of(editor_for("gpt2").edit(face, requests(), k=4).patch).updates
    two = weights_of(editor_for("gpt2").edit(linear_twin(face), requests(), k=4).patch).updates
    for site, update in one.items():
        torch.testing.assert_close(update.dense_ROI(), two[site].dense_ROI(), atol=1e-8, rtol=1e-8)


def test_edits_about_one_subject_can_share_a_value() -> None:
    face = make_causal("gpt2")
    first = requests()[0]
    other = replace(first, prompt="Ada Verrin works for", target=" the guild", relation="s")
    asked = [first, requests()[1], other]
    editor = editor_for("gpt2", shared=True)
    texts = locate.spots(face, asked, ())
    stream = locate.read(face, [s[0] for s in texts], [], blocks(face.model)[1]).stream_BD
    assert stream is not None
    found, group = editor._search(face, asked, texts, stream, [True] * 3, 3)
    assert group.tolist() == [0, 1, 0]
    assert found.delta_GD.shape == (2, 16)
    assert editor._search(face, asked, texts, stream, [True] * 3, 1)[1].tolist() == [0, 1, 2]
    assert editor.edit(face, asked, k=3).patch.rows == 1


@pytest.mark.parametrize("shared", [False, True])
def test_contradictions_are_refused_or_dropped(shared: bool) -> None:
    face = make_causal("gpt2")
    first, *_, last = requests()
    against = Request(prompt=first.prompt, target=" Oslo", subject=first.subject)
    with pytest.raises(EditorError, match="keep_first or keep_last"):
        editor_for("gpt2").edit(face, [first, against, last], k=3)
    editor = editor_for("gpt2", conflicts="keep_last", shared=shared)
    found = editor.edit(face, [first, against, last], k=3)
    alone = editor.edit(face, [against, last], k=2)
    assert (found.steps, found.stopped_early) == (alone.steps, alone.stopped_early)
    for site, update in weights_of(found.patch).updates.items():
        wanted = weights_of(alone.patch).updates[site].dense_ROI()
        torch.testing.assert_close(update.dense_ROI(), wanted, atol=1e-8, rtol=1e-8)


def test_models_and_settings_it_cannot_work_with_are_refused() -> None:
    face = make_causal("gpt2")
    reasons = {
        "no layers are published": memit.Config(weight=1.0),
        "no weight is published": memit.Config(layers=(0, 1)),
        "there is no block 5": memit.Config(layers=(0, 5), weight=1.0),
    }
    for reason, config in reasons.items():
        assert reason in (memit.Editor(config).applies_to(face) or "")
    assert "normalise" in (editor_for("gpt2").applies_to(make_causal("gemma2")) or "")
    with pytest.raises(SettingsError, match="rising order"):
        memit.Config(layers=(1, 0))
    with pytest.raises(SettingsError, match="above 0"):
        memit.Config(weight=0.0)
