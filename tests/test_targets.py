"""The search for values: against torch's own Adam on whole passes, and alone against together."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from architectures import CAUSAL, make_causal, requests
from torch.nn import functional as F

from pipeline.editing import locate, sought, targets
from pipeline.editing.sought import Config, Sought, Where
from pipeline.models import Face
from pipeline.models.layouts import blocks, downs

CONTEXTS = ("Now. ", "By the sea. ")


def ask(face: Face, block: int, *, contexts: tuple[str, ...] = CONTEXTS) -> list[Sought]:
    texts = locate.spots(face, requests(), contexts)
    bare = [spots[0] for spots in texts]
    stream = locate.read(face, bare, [], blocks(face.model)[block]).stream_BD
    assert stream is not None
    norms, essences = sought.norms(stream), locate.essence(face, requests())
    return [Sought(texts[i], essences[i], i, norms[i]) for i in range(4)]


def by_torch(face: Face, edit: Sought, where: Where, config: Config) -> tuple[torch.Tensor, int]:
    """One value, by Adam on whole passes over one text after another."""
    delta = torch.zeros(16, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([delta], lr=config.lr)
    essence = edit.essence.encoded.ids

    def logits(ids: list[int], at: int, change: torch.Tensor) -> torch.Tensor:
        def hook(_m: Any, _i: Any, output: Any) -> Any:
            stream = output[0] if isinstance(output, tuple) else output
            row = torch.arange(stream.shape[1]) == at
            stream = stream + row[None, :, None] * change
            return (stream, *output[1:]) if isinstance(output, tuple) else stream

        module = face.model.get_submodule(where.site or blocks(face.model)[where.block])
        handle = module.register_forward_hook(hook)
        output = face.model(torch.tensor([ids])).logits[0]
        handle.remove()
        return output

    before = torch.log_softmax(logits(essence, edit.essence.at, torch.zeros(16)), -1)[-1].detach()
    for step in range(config.steps):
        loss = torch.zeros((), dtype=torch.float64)
        for spot in edit.texts:
            found = logits(spot.encoded.ids, spot.at, delta)[spot.encoded.positions]
            loss = loss + F.cross_entropy(found, torch.tensor(spot.encoded.labels))
        loss = loss / len(edit.texts)
        now = torch.log_softmax(logits(essence, edit.essence.at, delta), -1)[-1]
        loss = loss + config.kl * F.kl_div(before, now, log_target=True, reduction="sum")
        loss = loss + config.decay * delta.norm() / edit.norm**2
        if loss < config.enough or step + 1 == config.steps:
            break
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if (size := delta.detach().norm()) > config.clamp * edit.norm:
            delta.data *= config.clamp * edit.norm / size
    return delta.detach(), step


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("name", ["gpt2", "gptj", "gemma"])
def test_values_are_adams_on_whole_passes(name: str, inside: bool) -> None:
    """Some values end early, some are clamped; each goes its own way."""
    face = make_causal(name)
    config = Config(steps=6, lr=0.3, kl=0.5, clamp=0.4, enough=1.5, rows=7)
    edits = ask(face, 1)
    where = Where(1, downs(face.model)[1] if inside else None)
    found = targets.optimise(face, edits, where, 16, config)
    for number, edit in enumerate(edits):
        delta, steps = by_torch(face, edit, where, config)
        assert found.steps[number] == steps
        torch.testing.assert_close(found.delta_GD[number], delta, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("name", CAUSAL)
def test_company_changes_no_value(name: str) -> None:
    face = make_causal(name)
    config = Config(steps=8, clamp=2.0, enough=1.0)
    edits, where = ask(face, 0), Where(0)
    together = targets.optimise(face, edits, where, 16, config)
    assert together.delta_GD.norm(dim=1).min() > 0.1
    for number, edit in enumerate(edits):
        alone = targets.optimise(face, [replace(edit, group=0)], where, 16, config)
        assert alone.steps[0] == together.steps[number]
        torch.testing.assert_close(
            alone.delta_GD[0], together.delta_GD[number], atol=1e-5, rtol=1e-5
        )


def test_edits_that_share_a_value_add_their_losses() -> None:
    """Twins that share one move as one alone does, since Adam does not see a loss's scale."""
    face = make_causal("gpt2")
    config = Config(steps=6, enough=0.0)
    edit = ask(face, 1)[0]
    one = targets.optimise(face, [edit], Where(1), 16, config)
    two = targets.optimise(face, [edit, replace(edit)], Where(1), 16, config)
    assert two.delta_GD.shape == (1, 16)
    torch.testing.assert_close(two.delta_GD, one.delta_GD, atol=1e-4, rtol=1e-4)
    other = replace(ask(face, 1)[1], group=0)
    mixed = targets.optimise(face, [edit, other], Where(1), 16, config)
    assert not torch.allclose(mixed.delta_GD, one.delta_GD, atol=1e-3)


def test_a_search_of_one_step_moves_nothing() -> None:
    face = make_causal("gpt2")
    found = targets.optimise(face, ask(face, 1), Where(1), 16, Config(steps=1))
    assert not found.delta_GD.any()
    assert found.steps == (0,) * 4
