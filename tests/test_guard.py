"""The guard: probes asked before and after, and limits past which an edit is not made."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import make_face
from models_on_disk import FT, corrections_for, logits, model_folder

from pipeline.editable import Editable, Guard, GuardError, Health
from pipeline.editable.guard import _past
from pipeline.editing.patch import Patch
from pipeline.editing.updates import Factors
from pipeline.errors import SettingsError
from pipeline.records import Probe

PROBES = (Probe("The harbour", " was built"),)


def test_the_guard_measures_nothing_where_nothing_changed() -> None:
    for architecture, probes in (("gpt2", PROBES), ("t5", PROBES), ("bert", ())):
        health = Editable(make_face(architecture), guard=Guard(probes=probes)).health()
        assert health.perplexity == health.perplexity_before > 1
        assert (health.agreement, health.drawdown, health.growth) == (1.0, 0.0, 0.0)
        assert health.past == ()


@pytest.mark.parametrize("action", ["flag", "refuse"])
def test_an_edit_past_a_limit_is_flagged_or_refused(action: str, tmp_path: Path) -> None:
    folder = model_folder("gpt2", tmp_path / "model")
    guard = Guard(action=action, growth=1e-6, probes=PROBES)  # type: ignore[arg-type]
    one = Editable.load(folder, journal=tmp_path / "journal", guard=guard)
    pair = corrections_for(one.face)[0]
    if action == "flag":
        (edit,) = one.edit([pair], **FT)
        assert edit.health
        assert edit.health.past[-1].startswith("norm growth")
        assert one.edits == (edit,)
        return
    clean = logits(one.face, one)
    with pytest.raises(GuardError, match=r"'Where was Ada Verrin born\?'.*norm growth.*not made"):
        one.edit([pair], **FT)
    with pytest.raises(GuardError), one.temporarily([pair], **FT):
        pass
    assert torch.equal(logits(one.face, one), clean)
    assert not (tmp_path / "journal").exists()


def test_growth_is_the_norm_of_what_is_added() -> None:
    face = make_face("gpt2")
    one = Editable(face, guard=Guard(probes=PROBES))
    site = face.sites()[0]
    draws = torch.Generator().manual_seed(0)
    factors = Factors(
        torch.randn(1, 3, 64, generator=draws), torch.randn(1, 3, 16, generator=draws)
    )
    one._state.put(1, "", Patch({site: factors}))
    weight = face.model.get_submodule(site).weight
    expected = factors.dense_ROI().norm() / weight.norm()
    assert one.health().growth == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"action": "Refuse"}, r"'flag' or 'refuse' or 'off'; found 'Refuse'\. .*mean 'refuse'"),
        ({"action": "refsue"}, "Did you mean 'refuse'"),
        ({"action": None}, "found None"),
        ({"action": ["refuse"]}, "Did you mean 'refuse'"),
        ({"perplexity": "x"}, "the guard's perplexity to be a number from 0 to inf; found 'x'"),
        ({"agreement": None}, "the guard's agreement to be a number from 0 to 1; found None"),
        ({"growth": True}, "growth to be a number"),
        ({"entropy": 2}, "the guard's entropy from 0 to 1; found 2"),
        ({"entropy": float("nan")}, "found nan"),
    ],
)
def test_a_guard_that_would_not_watch_is_refused(settings: dict[str, Any], expected: str) -> None:
    with pytest.raises(SettingsError, match=expected):
        Guard(**settings)


@pytest.mark.parametrize(
    ("agreement", "limit", "expected"),
    [
        (0.796, 0.8, "agreement 0.796, limit 0.8"),
        (0.7999996, 0.8, "agreement 0.7999996, limit 0.8"),
        (0.3, 0.8, "agreement 0.30, limit 0.8"),
        (0.801, 0.804, "agreement 0.80, limit 0.804"),
        (0.7958, 0.796, "agreement 0.7958, limit 0.796"),  # not 0.80, which lies above it
        (math.nextafter(0.8, 0), 0.8, "agreement 0.7999999999999999, limit 0.8"),
        (0.8, 0.80000001, "agreement 0.80, limit 0.80000001"),
        (math.nan, 0.8, "agreement nan, limit 0.8"),
    ],
)
def test_a_measure_and_its_limit_never_look_equal(
    agreement: float, limit: float, expected: str
) -> None:
    health = Health(
        perplexity_before=2, perplexity=2, agreement=agreement, drawdown=0, growth=0,
        entropy_before=1, entropy=1,
    )  # fmt: skip
    assert _past(Guard(agreement=limit), health) == (expected,)
