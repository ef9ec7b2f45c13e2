"""Late blocks at late positions give what the whole pass gives, in every architecture."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from architectures import CAUSAL, make_causal, requests
from torch import Tensor

from pipeline.editing import locate
from pipeline.models import tail
from pipeline.models.layouts import blocks


@pytest.mark.parametrize("name", [*CAUSAL, "gemma2", "opt"])
def test_a_tail_gives_the_whole_models_logits(name: str) -> None:
    """With a change of the stream at one token too, which the whole pass gets by a hook."""
    face = make_causal(name)
    spots = [
        s for found in locate.spots(face, requests(), ("Now. ", "By the sea. ")) for s in found
    ]
    encoded, at = [spot.encoded for spot in spots], [spot.at for spot in spots]
    assert len(set(at)) > 3
    batch = face.collate(encoded)
    whole_NV = face.logits(batch)
    for first in range(4):
        end = tail.cut(face, encoded, at, first)
        torch.testing.assert_close(tail.logits(face, end), whole_NV, atol=1e-6, rtol=1e-6)
        if not first:
            continue
        delta_BD = torch.randn(len(at), 16, dtype=torch.float64)

        def change(x_BSD: Tensor, delta_BD: Tensor = delta_BD) -> Tensor:
            return torch.cat([x_BSD[:, :1] + delta_BD[:, None], x_BSD[:, 1:]], dim=1)

        def hook(_m: Any, _i: Any, output: Any, delta_BD: Tensor = delta_BD) -> Any:
            stream = (output[0] if isinstance(output, tuple) else output).clone()
            stream[torch.arange(len(at)), torch.tensor(at)] += delta_BD
            return (stream, *output[1:]) if isinstance(output, tuple) else stream

        handle = face.model.get_submodule(blocks(face.model)[first - 1])
        registered = handle.register_forward_hook(hook)
        changed_NV = face.logits(batch)
        registered.remove()
        assert not torch.allclose(changed_NV, whole_NV)
        found_NV = tail.logits(face, end, change)
        torch.testing.assert_close(found_NV, changed_NV, atol=1e-6, rtol=1e-6)
        some = [3, 1]
        part = tail.logits(face, end.select(some), lambda x: change(x, delta_BD[some]))  # noqa: B023
        places = torch.cat([torch.where(batch.row_N == row)[0] for row in some])
        torch.testing.assert_close(part, changed_NV[places], atol=1e-6, rtol=1e-6)
    assert not any("forward" in block.__dict__ for block in face.model.modules())
