"""MEND's transform against the reference's numbers, and its edits against plain gradients."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import make_face, pairs_for
from safetensors.torch import load_file
from torch import Tensor

from pipeline.editing import draws
from pipeline.editing.gradients import token_gradients
from pipeline.editing.normaliser import Normaliser, Whitener
from pipeline.editing.patch import linear_map, weight_OI
from pipeline.editing.updates import Factors
from pipeline.editors import mend
from pipeline.models import Face
from pipeline.records import Request

GOLDEN = Path(__file__).parent / "golden" / "mend"
TENSORS = load_file(GOLDEN / "gradient_transform.safetensors")
FACTS = json.loads((GOLDEN / "gradient_transform.json").read_text())
VARIANTS: dict[str, dict[str, Any]] = {
    "default": {},
    "no_norm": {"norm": False},
    "xavier": {"init": "xavier", "residual": False},
    "x_only": {"combine": False, "transform": "u"},
    "delta_only": {"combine": False, "transform": "delta"},
    "one_sided": {"combine": False, "transform": "smaller"},
    "both_separate": {"combine": False},
}
_NETS = {"mlp": "whole", "mlp1": "on_u", "mlp2": "on_delta"}
_PARTS = {"u": "U", "v": "V", "bias": "bias"}


def reference(variant: str, group: str = "param") -> dict[str, Tensor]:
    """The reference's tensors under our names."""
    found = {}
    for name, tensor in TENSORS.items():
        if not name.startswith(f"{variant}.{group}."):
            continue
        net, _, layer, *part = name.removeprefix(f"{variant}.{group}.").split(".")
        ours = _PARTS.get(part[0], part[0].removeprefix("mode_") + "_MD")
        found[f"{_NETS[net]}.{('first', 'second')[int(layer)]}.{ours}"] = tensor
    return found


def build(variant: str, settings: dict[str, Any]) -> mend.Transform:
    config = mend.Config(rank=8, **settings)
    transform = mend.Transform(12, 20, 2, config, torch.Generator().manual_seed(0))
    missing, unexpected = transform.load_state_dict(reference(variant), strict=False)
    assert not unexpected
    assert all("norm" in name for name in missing)
    return transform


def tokens(name: str) -> tuple[Tensor, Tensor]:
    u_ND, delta_ND = TENSORS[f"{name}.u"][0], TENSORS[f"{name}.delta"][0]
    live = (u_ND != 0).any(-1) & (delta_ND != 0).any(-1)
    return u_ND[live], delta_ND[live]


def _own(matrix: int, tokens: int) -> Tensor:
    """Which of two matrices the tokens are of."""
    return torch.eye(2)[matrix].expand(tokens, 2)


@pytest.mark.parametrize("variant", VARIANTS)
def test_transform_reproduces_the_reference(variant: str) -> None:
    assert set(FACTS["variants"]) == set(VARIANTS)
    transform = build(variant, VARIANTS[variant])
    calls = [("train0", 0), ("train1", 1)]
    calls += [(test, mode) for test in ("test0", "test1") for mode in (0, 1)]
    for name, mode in calls:
        transform.train(name.startswith("train"))
        u_ND, delta_ND = tokens(name)
        outs = transform(u_ND, delta_ND, _own(mode, len(u_ND)))
        for key, out in zip(("u_out", "delta_out"), outs, strict=True):
            expected = TENSORS[f"{variant}.{name}.mode{mode}.{key}"]
            assert (out - expected).norm() <= 1e-5 * expected.norm()
        if name.startswith("train"):
            check_statistics(transform, f"{variant}.after_{name}")


def check_statistics(transform: mend.Transform, key: str) -> None:
    assert transform.norm_u.count == TENSORS[f"{key}.k"]
    for ours, theirs in ((transform.norm_u, "u"), (transform.norm_delta, "v")):
        pairs = ((ours.mean_D, "mean"), (ours.squares_D, "s"), (ours.std_D(), "std"))
        for value, name in pairs:
            expected = TENSORS[f"{key}.{theirs}_{name}"]
            torch.testing.assert_close(value.float(), expected, rtol=1e-4, atol=1e-6)


def test_gradients_at_the_identity_reach_u_and_bias() -> None:
    transform = build("idinit", {})
    count = TENSORS["idinit.k"][0].double()
    for ours, theirs in ((transform.norm_u, "u"), (transform.norm_delta, "v")):
        mean, squares = TENSORS[f"idinit.{theirs}_mean"], TENSORS[f"idinit.{theirs}_s"]
        ours.merge(count, mean.double(), squares.double())
    transform.eval()
    u_ND, delta_ND = tokens("test0")
    outs = transform(u_ND, delta_ND, _own(0, len(u_ND)))
    (torch.cat(outs, dim=1) * TENSORS["idinit.R"]).sum().backward()
    expected = reference("idinit", "grad")
    for name, parameter in transform.named_parameters():
        assert parameter.grad is not None
        if expected[name].norm() == 0:  # V and scale get none while U is zero
            assert parameter.grad.norm() == 0
        else:
            assert (parameter.grad - expected[name]).norm() <= 1e-4 * expected[name].norm()
    assert expected["whole.first.U"].norm() > 0


def test_identity_network_without_norm_is_one_gradient_step(face: Face) -> None:
    face.model.double()
    learner = mend.Mend(face, mend.Config(norm=False, alpha=0.25, rank=4), seed=0).double().eval()
    edits = draws.encode(face, [Request(prompt=p, target=t) for p, t in pairs_for(face)])
    patch = learner.patch(face, edits)
    found = token_gradients(face, edits.batch, face.sites())
    for site, tokens_ in found.gradients.items():
        # clamp(0) adds nothing while U, bias and shift are zero.
        expected = -0.25 * Factors(tokens_.delta_RTO, tokens_.u_RTI).dense_ROI()
        torch.testing.assert_close(patch.updates[site].dense_ROI(), expected)


@pytest.mark.parametrize(
    ("settings", "count"),
    [
        ({}, lambda m, n, sites: 2 * (2 * (m + n) * 8 + (m + n)) + 4 * (m + n) * sites),
        (
            {"transform": "u", "combine": False},
            lambda m, _n, sites: 2 * (2 * m * 8 + m) + 4 * m * sites,
        ),
        (
            {"transform": "delta", "combine": False},
            lambda _m, n, sites: 2 * (2 * n * 8 + n) + 4 * n * sites,
        ),
    ],
)
def test_parameter_counts(settings: dict[str, Any], count: Any) -> None:
    transform = mend.Transform(
        12, 20, 3, mend.Config(rank=8, **settings), torch.Generator().manual_seed(0)
    )
    assert sum(p.numel() for p in transform.parameters()) == count(12, 20, 3)


def test_networks_are_shared_by_shape_or_not() -> None:
    face = make_face("gpt2")
    assert len(mend.Mend(face, mend.Config(rank=4), 0).transforms) == 2
    assert len(mend.Mend(face, mend.Config(rank=4, shared=False), 0).transforms) == 6
    shape = weight_OI(linear_map(face.model, face.sites()[0])).shape
    assert shape == (64, 16)


def test_normaliser_counts_batches_as_rows_one_by_one() -> None:
    draws = torch.Generator().manual_seed(0)
    x = torch.randn(50, 3, generator=draws, dtype=torch.float64) * 5 + 2
    batched, single = Normaliser(3), Normaliser(3)
    for part in x.split([1, 20, 0, 29]):
        batched.observe(part)
    for row in x:
        single.observe(row[None])
    torch.testing.assert_close(batched.mean_D, x.mean(0))
    torch.testing.assert_close(batched.std_D(), x.std(0))
    torch.testing.assert_close(single.std_D(), x.std(0))


def test_whitened_vectors_are_the_inverse_moments_and_of_unit_square() -> None:
    draws = torch.Generator().manual_seed(3)
    mixing = torch.randn(6, 6, generator=draws, dtype=torch.float64)
    x_ND = torch.randn(400, 6, generator=draws, dtype=torch.float64) @ mixing + 2
    whitener = Whitener(6)
    for part in x_ND.split(90):
        whitener.observe(part)
    moment = x_ND.T @ x_ND / 400
    found = whitener(x_ND)
    expected = torch.linalg.solve(moment + 1e-2 * moment.diagonal().mean() * torch.eye(6), x_ND.T).T
    ratio = found / expected
    torch.testing.assert_close(ratio, ratio[0, 0].expand_as(ratio))
    assert found.square().mean().item() == pytest.approx(1)


def test_whitening_is_a_setting_of_mend() -> None:
    face = make_face("gpt2")
    learner = mend.Mend(face, mend.Config(whiten=True), 0)
    edits = draws.encode(face, [Request(prompt=p, target=t) for p, t in pairs_for(face)])
    learner.observe(face, edits)
    patch = learner.eval().patch(face, edits)
    again = mend.Mend(face, mend.Config(whiten=True), 1)
    again.load_state_dict(learner.state_dict())
    for site, update in again.eval().patch(face, edits).updates.items():
        other = patch.updates[site]
        assert isinstance(update, Factors)
        assert isinstance(other, Factors)
        assert torch.equal(update.right_RKI, other.right_RKI)
