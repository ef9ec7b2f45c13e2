"""Tiny random causal models of eight families, and inputs about the subjects of their texts."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cache

import torch
from conftest import SENTENCES, SHAPE, make_face
from torch import nn
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    GemmaConfig,
    GemmaForCausalLM,
    GPTJConfig,
    GPTJForCausalLM,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
)
from transformers.pytorch_utils import Conv1D

from pipeline.editing import summing
from pipeline.editing.moments import Config, Moments
from pipeline.models import Face, face_of
from pipeline.models.scratch import make_tokenizer
from pipeline.records import Request

CAUSAL = ("gpt2", "gpt_neo", "gptj", "gpt_neox", "llama", "qwen2", "mistral", "gemma")
CORPUS = (
    *SENTENCES,
    *(
        f"{one} {two} the {three}"
        for one in ("Ada", "Tom of", "Lisbon was", "Oslo, too,", "A guild")
        for two in ("built", "in which", "where", "born by")
        for three in ("river.", "harbour, flows.", "masons", "twelfth town?")
    ),
)
_GATED = {
    "max_position_embeddings": 64,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
}


def _gptj(vocabulary: int) -> PreTrainedModel:
    return GPTJForCausalLM(
        GPTJConfig(vocab_size=vocabulary, n_positions=64, n_embd=16, n_layer=3, n_head=2,
                   rotary_dim=4, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
                   bos_token_id=1, eos_token_id=2)
    )  # fmt: skip


def _gpt_neox(vocabulary: int) -> PreTrainedModel:
    return GPTNeoXForCausalLM(
        GPTNeoXConfig(vocab_size=vocabulary, max_position_embeddings=64, hidden_size=16,
                      intermediate_size=24, num_hidden_layers=3, num_attention_heads=2,
                      bos_token_id=1, eos_token_id=2)
    )  # fmt: skip


_BUILDERS: dict[str, Callable[[int], PreTrainedModel]] = {
    "gptj": _gptj,
    "gpt_neox": _gpt_neox,
    "qwen2": lambda size: Qwen2ForCausalLM(Qwen2Config(vocab_size=size, **_GATED)),
    "mistral": lambda size: MistralForCausalLM(MistralConfig(vocab_size=size, **_GATED)),
    "gemma": lambda size: GemmaForCausalLM(GemmaConfig(vocab_size=size, **_GATED)),
    "gemma2": lambda size: Gemma2ForCausalLM(Gemma2Config(vocab_size=size, **_GATED)),
}


def make_causal(name: str, *, double: bool = True) -> Face:
    """A tiny random model, loud enough to respond to edits, in float64."""
    if name not in _BUILDERS:
        face = make_face(name)
    else:
        tokenizer = make_tokenizer("causal", SENTENCES, SHAPE)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = _BUILDERS[name](len(tokenizer))
            for parameter in model.parameters():
                if parameter.ndim > 1:
                    parameter.data.normal_(std=0.3)
        model.set_attn_implementation("eager")
        face = face_of(model, tokenizer)
    if double:
        face.model.double()
    return face


@cache
def moments_of(name: str) -> Moments:
    """Second moments of such a model, with more tokens than a key has dimensions."""
    config = Config()
    return summing.take(make_causal(name), CORPUS, config, 0)


def requests() -> list[Request]:
    """Edits of unequal lengths; the subject stands first, last and in the middle."""
    texts = (
        ("Ada Verrin was born in", " Lisbon", "Ada Verrin"),
        ("The harbour was built by Tom Asker", " now", "Tom Asker"),
        ("The old town of Oslo", " was built", "The old town of Oslo"),
        ("A guild works in Lisbon for the", " railway", "Lisbon"),
    )
    return [Request(prompt=p, target=t, subject=s, relation="r") for p, t, s in texts]


def linear_twin(face: Face) -> Face:
    """The same model with every Conv1D as the nn.Linear that computes the same."""
    model = copy.deepcopy(face.model)
    for name, module in list(model.named_modules()):
        if isinstance(module, Conv1D):
            weight = module.weight
            linear = nn.Linear(*weight.shape, dtype=weight.dtype)
            linear.weight.data, linear.bias.data = weight.data.T.contiguous(), module.bias.data
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, linear)
    return face_of(model, face.tokenizer)
