"""One prompt's clean and corrupted runs through a language model, and runs that mix their states.

Causal tracing's engine: noise on the subject's embeddings, and in every row of a batch some states
put back from the clean run, or held as the corrupted run has them.

Shape suffixes:
    B rows of a batch      T positions of the prompt      D width      S draws of the noise
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from pipeline.models import Encoded, Face
from pipeline.models.layouts import layout_of

State = Literal["block", "mlp", "attention"]
STATES: tuple[State, ...] = ("block", "mlp", "attention")
_Site = tuple[State, int]
_Change = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Tries:
    """What is done in each row of a batch: a draw of the noise, and states put in place.

    Attributes:
        draw_B: which draw of the noise the row sees; -1 for none.
        state_B: what is put back from the clean run, an index into `STATES`; -1 for nothing.
        first_B, end_B: of which blocks.
        severed_B: what stays as the corrupted run has it, in all blocks; -1 for nothing.
        at_BT: at which positions.
    """

    draw_B: Tensor
    state_B: Tensor
    first_B: Tensor
    end_B: Tensor
    severed_B: Tensor
    at_BT: Tensor

    def __len__(self) -> int:
        return len(self.draw_B)

    def part(self, rows: slice) -> Tries:
        """Some of the rows."""
        return Tries(*(tensor[rows] for tensor in vars(self).values()))


def sites_of(face: Face) -> dict[_Site, str]:
    """The modules whose outputs are put back: blocks, and each one's last linear maps.

    An MLP's output is that of its last linear map, and so is an attention's, in every layout.
    """
    (stack,) = layout_of(face.model.config).stacks
    blocks = face.model.get_submodule(stack.blocks)
    found: dict[_Site, str] = {}
    for layer in range(len(blocks)):
        block = f"{stack.blocks}.{layer}"
        found["block", layer] = block
        found["mlp", layer] = f"{block}.{stack.mlp[-1]}"
        found["attention", layer] = f"{block}.{stack.attention[-1]}"
    return found


class Run:
    """One prompt's clean and corrupted runs, and what comes of mixing their states."""

    def __init__(self, face: Face, ids: Sequence[int], answer: int, subject: range) -> None:
        self._face, self.subject = face, subject
        self._asked = Encoded(list(ids), [len(ids) - 1], [answer])
        self._sites = sites_of(face)
        self.layers = len(self._sites) // len(STATES)
        self.positions = range(len(ids))

    @torch.no_grad()
    def corrupt(self, scale: float, draws: int, seed: str) -> None:
        """Draw the noise, and run the prompt clean and under every draw."""
        digest = hashlib.sha256(seed.encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
        width = self._face.model.get_input_embeddings().weight.shape[1]
        noise_STD = torch.zeros(draws, len(self.positions), width)
        shape = (draws, len(self.subject), width)
        noise_STD[:, list(self.subject)] = scale * torch.randn(shape, generator=generator)
        # Draw -1, the last, is none.
        self._noise_STD = nn.functional.pad(noise_STD, (0, 0, 0, 0, 0, 1)).to(self._face.device)
        self._seen: dict[_Site, Tensor] = {}
        nothing = torch.full((draws + 1,), -1)
        order = torch.tensor([-1, *range(draws)])
        plain = Tries(order, nothing, nothing, nothing, nothing, torch.zeros(draws + 1, 1) > 0)
        keep = {site: self._keeper(site) for site in self._sites}
        p_B = self._probabilities(plain, keep)
        self.p_clean, self.p_corrupt = float(p_B[0]), float(p_B[1:].mean())

    @torch.no_grad()
    def __call__(self, tries: Tries) -> Tensor:
        """The answer's probability in each row."""
        changes = {site: self._changer(site, tries) for site in self._sites}
        return self._probabilities(tries, changes)

    def _probabilities(self, tries: Tries, hooks: Mapping[_Site, _Change]) -> Tensor:
        noise_BTD = self._noise_STD[tries.draw_B]
        batch = self._face.collate([self._asked] * len(tries))
        embed = self._face.model.get_input_embeddings()

        def add_noise(output_BTD: Tensor) -> Tensor:
            return output_BTD + noise_BTD.to(output_BTD.dtype)

        with ExitStack() as stack:
            stack.enter_context(_changed(embed, add_noise, len(tries)))
            for site, change in hooks.items():
                module = self._face.model.get_submodule(self._sites[site])
                stack.enter_context(_changed(module, change, len(tries)))
            logits_BV = self._face.logits(batch)
        p_BV = logits_BV.float().softmax(-1)
        return p_BV.gather(1, batch.label_N[:, None])[:, 0].cpu()

    def _keeper(self, site: _Site) -> _Change:
        def keep(output_BTD: Tensor) -> Tensor:
            self._seen[site] = output_BTD
            return output_BTD

        return keep

    def _changer(self, site: _Site, tries: Tries) -> _Change:
        """Put clean or corrupted states into an output; row 0 of what was seen is the clean run."""
        state, layer = STATES.index(site[0]), site[1]
        back_B = (tries.state_B == state) & (tries.first_B <= layer) & (layer < tries.end_B)
        cut_B = tries.severed_B == state
        seen_STD = self._seen[site]

        def change(output_BTD: Tensor) -> Tensor:
            output_BTD = output_BTD.clone()
            for chosen_B, run_B in ((back_B, torch.zeros_like(tries.draw_B)),
                                    (cut_B, tries.draw_B + 1)):  # fmt: skip
                row, at = (chosen_B[:, None] & tries.at_BT).nonzero(as_tuple=True)
                output_BTD[row, at] = seen_STD[run_B[row], at]
            return output_BTD

        return change


@contextmanager
def _changed(module: nn.Module, change: _Change, rows: int) -> Iterator[None]:
    """Let a module put out something else; of a tuple, its first member, the hidden states.

    Modules that see their tokens flattened (OPT) are served row by row.
    """

    def hook(_module: nn.Module, _inputs: Any, output: Any) -> Any:
        states = output[0] if isinstance(output, tuple) else output
        changed = change(states.reshape(rows, -1, states.shape[-1])).view_as(states)
        return (changed, *output[1:]) if isinstance(output, tuple) else changed

    handle = module.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()
