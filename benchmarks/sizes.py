"""Random models of published shapes, and the work that is measured on each."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from tokenizers import Tokenizer as RawTokenizer
from tokenizers import models, pre_tokenizers, processors
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    GPTJConfig,
    GPTJForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

from pipeline.models import Face, Tokenizer, face_of

_SPECIALS = ("<pad>", "</s>", "<s>", "<unk>")


@dataclass(frozen=True, kw_only=True)
class Work:
    """How much is done in one measured run. `few` of something is what the slow side gets.

    Attributes:
        edits, prompt, target, bystander: a training step: edits of prompt + target tokens, and as
            many bystanders (passages where the model is causal).
        learners: editors that are trained; ENN, which trains all of a model, not on the largest.
        rank: of MEND's networks.
        hidden: width of KE's networks.
        cases, few_cases: single edits with their scoring.
        rows, few_rows, ft_steps: fine-tuned edits and RMSprop steps.
        facts, few_facts, z_steps: MEMIT edits and steps of the search for their values.
        update_facts: edits whose keys and update are made together, on both sides.
        rome_facts, few_rome_facts, rome_steps: the same for ROME, whose texts are 21 for each edit.
        fact_prompt, fact_target: tokens of a fact; its subject ends in the middle of the prompt.
        layers: MEMIT's blocks; ROME edits the last of them.
        texts, text: a corpus for the moments, and the tokens of each of its texts.
    """

    edits: int = 10
    prompt: int = 20
    target: int = 10
    bystander: int = 60
    learners: tuple[str, ...] = ("mend", "ke", "enn")
    rank: int = 1920
    hidden: int = 512
    cases: int = 8
    few_cases: int = 2
    rows: int = 8
    few_rows: int = 2
    ft_steps: int = 4
    facts: int = 64
    few_facts: int = 1
    z_steps: int = 25
    update_facts: int = 64
    rome_facts: int = 4
    few_rome_facts: int = 1
    rome_steps: int = 20
    fact_prompt: int = 10
    fact_target: int = 1
    layers: tuple[int, ...] = (3, 4, 5, 6, 7)
    texts: int = 16
    text: int = 128


@dataclass(frozen=True, kw_only=True)
class Size:
    """A model's shape and its work. Encoder-decoders have `layers` in each stack."""

    name: str
    family: str = "gpt2"
    layers: int = 12
    width: int = 768
    heads: int = 12
    inner: int = 3072
    head_width: int = 64  # of T5, whose heads need not add up to the width
    vocabulary: int = 50257
    context: int = 1024
    work: Work = field(default_factory=Work)


_TINY = Work(
    edits=3,
    prompt=5,
    target=3,
    bystander=8,
    rank=24,
    hidden=8,
    cases=3,
    rows=3,
    ft_steps=3,
    facts=4,
    z_steps=4,
    update_facts=4,
    rome_facts=3,
    rome_steps=3,
    fact_prompt=6,
    layers=(0, 1),
    texts=4,
    text=12,
)
_LARGE = Work(
    learners=("mend", "ke"),
    layers=(3, 4, 5, 6, 7, 8),
    z_steps=25,
    rome_steps=20,
    rows=4,
    few_rows=1,
    texts=64,
    text=512,
)
SIZES = {
    size.name: size
    for size in (
        Size(
            name="tiny", layers=3, width=16, heads=2, inner=64, vocabulary=90, context=64,
            work=_TINY,
        ),
        Size(
            name="growth", layers=4, width=256, heads=4, inner=1024, vocabulary=2000, context=512,
            work=Work(rank=256, hidden=64),
        ),
        Size(name="gpt2-small"),
        Size(
            name="gpt-j-6b", family="gptj", layers=28, width=4096, heads=16, inner=16384,
            vocabulary=50400, context=2048, work=_LARGE,
        ),
        Size(
            name="t5-11b", family="t5", layers=24, width=1024, heads=128, inner=65536,
            head_width=128, vocabulary=32128, context=512, work=_LARGE,
        ),
    )
}  # fmt: skip


def resized(size: Size, **changed: int) -> Size:
    """Another shape of the same family; `width` keeps the other widths in proportion."""
    if width := changed.pop("width", None):
        factor = width / size.width
        work = replace(size.work, rank=round(size.work.rank * factor))
        size = replace(size, width=width, inner=round(size.inner * factor), work=work)
    shape: dict[str, Any] = {n: value for n, value in changed.items() if hasattr(size, n)}
    rest: dict[str, Any] = {n: value for n, value in changed.items() if n not in shape}
    return replace(size, **shape, work=replace(size.work, **rest))


def make_face(size: Size, device: torch.device, dtype: torch.dtype, seed: int = 0) -> Face:
    """A random model of that shape, made where it will run."""
    tokenizer = _tokenizer(size)
    builders = {"gpt2": _gpt2, "gptj": _gptj, "t5": _t5}
    before = torch.get_default_dtype()
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), device:
        torch.manual_seed(seed)
        torch.set_default_dtype(dtype)
        try:
            model = builders[size.family](size)
        finally:
            torch.set_default_dtype(before)
    return face_of(model, tokenizer)


def _tokenizer(size: Size) -> Tokenizer:
    """One token for each word: texts of exactly so many tokens."""
    words = [*_SPECIALS, *(f"w{n}" for n in range(size.vocabulary - len(_SPECIALS)))]
    raw = RawTokenizer(models.WordLevel({word: n for n, word in enumerate(words)}, "<unk>"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if size.family == "t5":
        raw.post_processor = processors.TemplateProcessing(
            single="$A </s>", special_tokens=[("</s>", 1)]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=raw,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        **({} if size.family == "t5" else {"bos_token": "<s>"}),
        padding_side="right",
        model_input_names=["input_ids", "attention_mask"],
    )


def _common(size: Size) -> dict[str, Any]:
    return {
        "vocab_size": size.vocabulary,
        "pad_token_id": 0,
        "eos_token_id": 1,
        "bos_token_id": 2,
        "attn_implementation": "eager",
    }


def _gpt2(size: Size) -> PreTrainedModel:
    return GPT2LMHeadModel(
        GPT2Config(
            n_positions=size.context,
            n_embd=size.width,
            n_layer=size.layers,
            n_head=size.heads,
            n_inner=size.inner,
            activation_function="gelu_pytorch_tanh",
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            **_common(size),
        )
    )


def _gptj(size: Size) -> PreTrainedModel:
    return GPTJForCausalLM(
        GPTJConfig(
            n_positions=size.context,
            n_embd=size.width,
            n_layer=size.layers,
            n_head=size.heads,
            n_inner=size.inner,
            rotary_dim=min(64, size.width // size.heads),
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            **_common(size),
        )
    )


def _t5(size: Size) -> PreTrainedModel:
    return T5ForConditionalGeneration(
        T5Config(
            d_model=size.width,
            d_ff=size.inner,
            d_kv=size.head_width,
            num_layers=size.layers,
            num_heads=size.heads,
            dropout_rate=0.0,
            **_common(size),
            **{"decoder_start_token_id": 0},
        )
    )
