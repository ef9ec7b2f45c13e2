"""ENN: train the model itself so that one gradient step edits it (Sinitsin et al., ICLR 2020).

MEND's version (its Eq. 5 and code): one inner step ΔW = -α ∇W on the edited matrices, with a
learned rate α for each. The outer loop trains α and *all* parameters of the model through that step
(second order), by c_edit L_e + L_loc plus a base loss that holds the model to what it was:
KL(original || current) on the bystanders. The paper's text has the base loss as a likelihood of the
data; its code distils, with weight 1 whatever `cbase` says.

The editor owns a copy of the model. The one it was given stays as it is.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.editing import metalearn
from pipeline.editing.draws import Draw, EditBatch
from pipeline.editing.editor import Edits, Material
from pipeline.editing.gradients import token_gradients
from pipeline.editing.learned import Learned
from pipeline.editing.patch import Patch
from pipeline.editing.updates import Factors
from pipeline.measures import kl
from pipeline.models import Face, face_of
from pipeline.models.layouts import Place
from pipeline.records import Request


def _outer() -> metalearn.Config:
    return metalearn.Config(lr=1e-5, lr_alpha=1e-3, warm_up=0)


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of ENN; the defaults are those of MEND's comparison.

    Attributes:
        place, blocks: which linear maps of how many last blocks (None: 3, or 2 of each stack).
        alpha: the edit rate every matrix starts with.
        outer: the outer loop; `lr` is of the model's own parameters, `lr_alpha` of the edit rates.
            The reference trains both at `lr` (its second optimiser never sees a gradient).
    """

    place: Place = "mlp"
    blocks: int | None = None
    alpha: float = 1e-2
    outer: metalearn.Config = field(default_factory=_outer)


class Enn(metalearn.Learner):
    """A copy of the model, and one edit rate for each edited matrix."""

    def __init__(self, face: Face, config: Config) -> None:
        super().__init__()
        self.original = face
        self.model = copy.deepcopy(face.model)
        self.model.set_attn_implementation("eager")  # the fused kind has no second derivative
        self.current = face_of(self.model, face.tokenizer)
        self.model.requires_grad_(True)
        self.sites = face.sites(config.place, config.blocks)
        rates = torch.full((len(self.sites),), config.alpha, device=face.device)
        self.alphas = nn.Parameter(rates)

    def train(self, mode: bool = True) -> Enn:
        """Dropout stays off: the edited model is one, not a sample of many."""
        super().train(mode)
        self.model.eval()
        return self

    def adapt(self, face: Face) -> Face:
        """The model as trained so far."""
        del face
        return self.current

    def groups(self, config: metalearn.Config) -> list[dict[str, Any]]:
        """All of the model at `lr`, the edit rates at `lr_alpha`."""
        whole = list(self.model.parameters())
        return [
            {"params": whole, "lr": config.lr, "initial_lr": config.lr},
            {"params": [self.alphas], "lr": config.lr_alpha, "initial_lr": config.lr_alpha},
        ]

    def observe(self, face: Face, edits: EditBatch) -> None:
        """There are no statistics to take."""
        del face, edits

    def patch(self, face: Face, edits: EditBatch) -> Patch:
        """One gradient step; where gradients are recorded, differentiable in all of the model."""
        found = token_gradients(
            face, edits.batch, self.sites, create_graph=torch.is_grad_enabled()
        ).gradients
        return Patch(
            {
                site: Factors(-alpha * found[site].delta_RTO, found[site].u_RTI)
                for site, alpha in zip(self.sites, self.alphas.to(face.model.dtype), strict=True)
            }
        )

    def loss(
        self, edit: Tensor, loc: Tensor, config: metalearn.Config, drawn: Draw, now_NV: Tensor
    ) -> Tensor:
        """Eq. 5: c_edit L_e + L_loc + KL(original || current) on the bystanders, in nats."""
        with torch.no_grad():
            original_NV = self.original.logits(drawn.bystanders)
        base = kl(original_NV, now_NV, drawn.bystanders).mean()
        return config.c_edit * edit + loc + base


class Editor(Learned[Config, Enn]):
    """ENN behind the editors' interface: edits are made on, and applied to, `adapt(face)`."""

    def start(self, face: Face, seed: int) -> Enn:
        """A copy of the model; nothing is drawn."""
        del seed
        return Enn(face, self.config)

    def adapt(self, face: Face) -> Face:
        """The model that `fit` trained; its attention is the eager kind."""
        return self.learner.adapt(face)

    def fit(self, face: Face, material: Material) -> list[dict[str, float]]:
        """Train a copy of the model, and the edit rates, by the shared outer loop."""
        curve = super().fit(face, material)
        self.learner.zero_grad()  # gradients of all of a model are no small thing to keep
        self.learner.model.requires_grad_(False)
        return curve

    def edit(self, face: Face, requests: Sequence[Request], k: int = 1) -> Edits:
        """One forward and one backward pass of the trained model."""
        assert face.model is self.learner.model, "edits are made on adapt(face)"
        return super().edit(face, requests, k)

    def tensors(self) -> dict[str, Tensor]:
        """The model and the edit rates; tied weights once, for safetensors refuses them twice."""
        once: dict[tuple[Any, ...], str] = {}
        state = self.learner.state_dict()
        for name, value in state.items():
            once.setdefault((value.data_ptr(), value.shape, value.stride()), name)
        return {name: state[name] for name in once.values()}

    def notes(self) -> dict[str, Any]:
        """What all note, and the edit rate that each matrix ended with."""
        rates = zip(self.learner.sites, self.learner.alphas.tolist(), strict=True)
        return super().notes() | {"alpha": dict(rates)}

    def restore(self, face: Face, tensors: Mapping[str, Tensor], notes: Mapping[str, Any]) -> None:
        """Copy the model again and load what was learned; tied weights follow their twin."""
        del notes
        self._learner = self.start(face, seed=0)
        self._learner.model.requires_grad_(False)
        named = set(tensors) ^ set(self.tensors())
        assert not named, f"tensors of another model: {sorted(named)[:3]}"
        self._learner.load_state_dict(dict(tensors), strict=False)
