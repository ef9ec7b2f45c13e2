"""Where each architecture keeps its blocks and the linear maps inside them.

The only place that knows names of modules. A layout is written down, never guessed from shapes.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import takewhile
from typing import Literal

from torch import nn
from transformers import PretrainedConfig

from pipeline.errors import ModelError, near_misses

Place = Literal["mlp", "attention"]
Kind = Literal["causal", "seq2seq", "classifier"]


@dataclass(frozen=True)
class Stack:
    """A run of blocks, and the editable linear maps inside each, relative to the block."""

    blocks: str
    mlp: tuple[str, ...]
    attention: tuple[str, ...]


@dataclass(frozen=True)
class Layout:
    """An architecture's stacks, in the order of the forward pass."""

    kind: Kind
    stacks: tuple[Stack, ...]
    normed: bool = False  # blocks normalise what their MLP writes before they add it


_GATED = ("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")
_QKVO = tuple(f"self_attn.{name}_proj" for name in "qkvo")
_LLAMA = Layout("causal", (Stack("model.layers", _GATED, _QKVO),))
_GEMMA2 = Layout("causal", _LLAMA.stacks, normed=True)
_OPT = Stack(
    "model.decoder.layers",
    ("fc1", "fc2"),
    tuple(f"self_attn.{n}_proj" for n in ("q", "k", "v", "out")),
)
_BART_ATTENTION = tuple(f"self_attn.{name}_proj" for name in ("q", "k", "v", "out"))
_T5_ATTENTION = tuple(f"layer.0.SelfAttention.{name}" for name in "qkvo")

LAYOUTS: dict[str, Layout] = {
    "gpt2": Layout(
        "causal",
        (Stack("transformer.h", ("mlp.c_fc", "mlp.c_proj"), ("attn.c_attn", "attn.c_proj")),),
    ),
    "gpt_neo": Layout(
        "causal",
        (
            Stack(
                "transformer.h",
                ("mlp.c_fc", "mlp.c_proj"),
                tuple(f"attn.attention.{name}_proj" for name in ("q", "k", "v", "out")),
            ),
        ),
    ),
    "gptj": Layout(
        "causal",
        (
            Stack(
                "transformer.h",
                ("mlp.fc_in", "mlp.fc_out"),
                tuple(f"attn.{name}_proj" for name in ("q", "k", "v", "out")),
            ),
        ),
    ),
    "gpt_neox": Layout(
        "causal",
        (
            Stack(
                "gpt_neox.layers",
                ("mlp.dense_h_to_4h", "mlp.dense_4h_to_h"),
                ("attention.query_key_value", "attention.dense"),
            ),
        ),
    ),
    "opt": Layout("causal", (_OPT,)),
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "qwen2": _LLAMA,
    "qwen3": _LLAMA,
    "gemma": _LLAMA,
    "gemma2": _GEMMA2,
    "gemma3_text": _GEMMA2,
    "bert": Layout(
        "classifier",
        (
            Stack(
                "bert.encoder.layer",
                ("intermediate.dense", "output.dense"),
                (
                    *(f"attention.self.{name}" for name in ("query", "key", "value")),
                    "attention.output.dense",
                ),
            ),
        ),
    ),
    "bart": Layout(
        "seq2seq",
        (
            Stack("model.encoder.layers", ("fc1", "fc2"), _BART_ATTENTION),
            Stack("model.decoder.layers", ("fc1", "fc2"), _BART_ATTENTION),
        ),
    ),
    "t5": Layout(
        "seq2seq",
        (
            Stack(
                "encoder.block",
                ("layer.1.DenseReluDense.wi", "layer.1.DenseReluDense.wo"),
                _T5_ATTENTION,
            ),
            Stack(
                "decoder.block",
                ("layer.2.DenseReluDense.wi", "layer.2.DenseReluDense.wo"),
                _T5_ATTENTION,
            ),
        ),
    ),
}


def layout_of(config: PretrainedConfig) -> Layout:
    """The layout of a model's architecture. Raises ModelError for one that is not known."""
    name = config.model_type
    if name not in LAYOUTS:
        raise ModelError(
            expected="an architecture whose layout is written down",
            found=repr(name),
            remedy=f"{near_misses(name, LAYOUTS)} Add it to pipeline/models/layouts.py.",
        )
    return LAYOUTS[name]


def sites(model: nn.Module, blocks: int, place: Place = "mlp") -> tuple[str, ...]:
    """Names of the linear maps in the last `blocks` blocks of every stack, in forward order.

    MEND edits the last 3 blocks of GPT and BERT models and the last 2 of each stack of BART and
    T5 (its appendix C). Gated T5 keeps two input maps; the paper edits the first, `wi_0`.

    Raises:
        ModelError: the architecture is not known or has fewer blocks.
    """
    found: list[str] = []
    for stack, count in _stacks(model):
        if not 1 <= blocks <= count:
            raise ModelError(
                expected=f"between 1 and {count} blocks of {stack.blocks}",
                found=str(blocks),
                remedy="Set `blocks` of the editor to what the model has.",
            )
        for block in range(count - blocks, count):
            found += _inner(model, stack, block, stack.mlp if place == "mlp" else stack.attention)
    return tuple(found)


def block_sites(
    model: nn.Module, block: int | None, place: Literal["mlp", "attention", "down"]
) -> tuple[str, ...]:
    """Names of linear maps in one block of every stack; "down" is the MLP's last.

    Args:
        model: of a known architecture.
        block: counted from 0; None: the one at three quarters of the depth.
        place: which of its maps.

    Raises:
        ModelError: there is no such block.
    """
    found: list[str] = []
    for stack, count in _stacks(model):
        number = count * 3 // 4 if block is None else block
        if not 0 <= number < count:
            raise ModelError(
                expected=f"a block from 0 to {count - 1} of {stack.blocks}",
                found=str(number),
                remedy="Set `block` of the editor to one that the model has.",
            )
        names = {"mlp": stack.mlp, "attention": stack.attention, "down": stack.mlp[-1:]}
        found += _inner(model, stack, number, names[place])
    return tuple(found)


def _stacks(model: nn.Module) -> list[tuple[Stack, int]]:
    """Each stack with its number of blocks."""
    config = model.config
    assert isinstance(config, PretrainedConfig)
    stacks = layout_of(config).stacks
    return [(stack, len(model.get_submodule(stack.blocks))) for stack in stacks]  # type: ignore[arg-type]


def _inner(model: nn.Module, stack: Stack, block: int, names: tuple[str, ...]) -> list[str]:
    found = [f"{stack.blocks}.{block}.{name}" for name in names]
    gated = getattr(model.config, "is_gated_act", False)
    return [f"{site}_0" if gated and site.endswith(".wi") else site for site in found]


def blocks(model: nn.Module) -> tuple[str, ...]:
    """Names of all blocks of a model of one stack, in forward order."""
    ((stack, count),) = _stacks(model)
    return tuple(f"{stack.blocks}.{block}" for block in range(count))


def attentions(model: nn.Module) -> tuple[str, ...]:
    """In every block, the module that holds all of its attention's maps."""
    ((stack, _),) = _stacks(model)
    parts = zip(*(name.split(".") for name in stack.attention), strict=False)
    shared = takewhile(lambda names: len(set(names)) == 1, parts)
    inner = ".".join(names[0] for names in shared)
    return tuple(f"{block}.{inner}" for block in blocks(model))


def downs(model: nn.Module) -> tuple[str, ...]:
    """In every block, the map by which the MLP writes: its input is what ROME calls a key."""
    ((stack, _),) = _stacks(model)
    return tuple(f"{block}.{stack.mlp[-1]}" for block in blocks(model))


def writes_normed(config: PretrainedConfig) -> bool:
    """Whether what an MLP writes is normalised before, or as, it is added to the stream.

    So it is in Gemma 2 and 3, and in OPT-350m, which normalises after each half block.
    """
    after = config.model_type == "opt" and not config.do_layer_norm_before
    return layout_of(config).normed or after


def default_blocks(config: PretrainedConfig) -> int:
    """How many last blocks the MEND paper edits in a model of this kind."""
    return 2 if layout_of(config).kind == "seq2seq" else 3
