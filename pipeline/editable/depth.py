"""Settings that go by a model's depth and width, for models that no paper has."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from pipeline.editing.depths import depth_of
from pipeline.editing.patch import linear_map, weight_OI
from pipeline.models import Face
from pipeline.models.layouts import default_blocks, downs, layout_of

_LOG = logging.getLogger(__name__)
# Mean of block / blocks over the published settings of ROME, and MEMIT's most blocks but one.
_SHARE, _MOST = 0.28, 5


def as_deep(face: Face, config: type, settings: dict[str, Any]) -> dict[str, Any]:
    """Settings with what is not set, and cannot be by default, chosen by the model's shape.

    The learned editors take the papers' last 3 blocks, or all where there are fewer. ROME and MEMIT
    have published blocks for a few sizes; elsewhere they take those at the same share of the depth,
    and MEMIT a λ of as many inputs as a key is wide (published: 0.2 to 3 times that).
    """
    chosen = by_shape(face, config, settings)
    if chosen.keys() & {"layer", "layers", "weight"}:
        _LOG.info("Nothing is published for this size; by its shape: %s", chosen)
    return settings | chosen


def by_shape(face: Face, config: type, settings: Mapping[str, Any]) -> dict[str, Any]:
    """What `as_deep` chooses."""
    known = {item.name for item in fields(config)}
    stacks = layout_of(face.model.config).stacks
    least = min(len(list(face.model.get_submodule(s.blocks).children())) for s in stacks)
    chosen: dict[str, Any] = {}
    if "blocks" in known and least < default_blocks(face.model.config):
        chosen["blocks"] = least
    if face.kind == "causal":
        published, middle = depth_of(face.model.config), int(_SHARE * least)
        if "layer" in known and published.rome is None:
            chosen["layer"] = middle
        if "layers" in known and not published.memit:
            chosen["layers"] = list(range(max(0, middle + 1 - _MOST), middle + 1))
        if "layers" in known and published.weight is None:
            site = downs(face.model)[middle]
            chosen["weight"] = float(weight_OI(linear_map(face.model, site)).shape[1])
    return {name: value for name, value in chosen.items() if settings.get(name) is None}
