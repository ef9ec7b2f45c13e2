"""At which depth ROME and MEMIT edit each architecture, as published.

One table for both. Sources: the settings of the references of ROME (GPT-2, GPT-J, GPT-NeoX) and
MEMIT (GPT-2 XL, GPT-J); of PMET (GPT-NeoX for MEMIT), EMMET (Llama 2 for ROME) and ENCORE (Llama
2 and 3 for MEMIT). Blocks are counted from 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PretrainedConfig


@dataclass(frozen=True)
class Depth:
    """Where an architecture of one size is edited.

    Attributes:
        rome: ROME's block.
        memit: MEMIT's blocks, in order.
        weight: MEMIT's λ, of what the model knows against what it is told.
    """

    rome: int | None = None
    memit: tuple[int, ...] = ()
    weight: float | None = None


DEPTHS: dict[tuple[str, int], Depth] = {  # by model type and number of blocks
    ("gpt2", 24): Depth(rome=8),
    ("gpt2", 36): Depth(rome=12),
    ("gpt2", 48): Depth(rome=17, memit=(13, 14, 15, 16, 17), weight=20_000),
    ("gptj", 28): Depth(rome=5, memit=(3, 4, 5, 6, 7, 8), weight=15_000),
    ("gpt_neox", 44): Depth(rome=15, memit=(6, 7, 8, 9, 10), weight=6_000),
    ("llama", 32): Depth(rome=5, memit=(4, 5, 6, 7, 8), weight=15_000),
}


def depth_of(config: PretrainedConfig) -> Depth:
    """What is published for a model of this type and depth; an empty depth for others."""
    return published(config.model_type, int(config.get_text_config().num_hidden_layers))


def published(model_type: str, blocks: int) -> Depth:
    """The same by name and number, for those who have no model open."""
    return DEPTHS.get((model_type, blocks), Depth())
