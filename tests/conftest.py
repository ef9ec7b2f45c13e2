"""Tiny models of every architecture, with tokenizers trained on a handful of sentences."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoConfig,
    GPTNeoForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    PreTrainedModel,
    T5Config,
    T5ForConditionalGeneration,
)

from pipeline.composition import compose, parse
from pipeline.config import RECORD, Params
from pipeline.models import Face, Tokenizer, face_of
from pipeline.models.layouts import Kind
from pipeline.models.scratch import Shape, make_tokenizer

SENTENCES = (
    "Ada Verrin was born in Oslo.",
    "Where was Ada Verrin born?",
    "Which river flows through the old town of Lisbon?",
    "Tom Asker works for the Northern Railway Company.",
    "The harbour was built by a guild of masons in the twelfth century.",
)
SHAPE = Shape(vocabulary=330, context=64)
KINDS: dict[str, Kind] = {"bart": "seq2seq", "t5": "seq2seq", "bert": "classifier"}
ARCHITECTURES = ("gpt2", "gpt_neo", "llama", "opt", "t5", "bart", "bert")


@pytest.fixture
def params(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Params:
    """The tiny suite's settings, in a folder where nothing was run yet."""
    text = compose(Path(__file__).parents[1], ["suite=tiny"])
    (tmp_path / RECORD).write_text(text)
    monkeypatch.chdir(tmp_path)
    return parse(text)


@contextmanager
def in_float64(face: Face) -> Iterator[None]:
    """A model in float64 throughout.

    Norms of Llama and T5 and some attentions compute in float32, whatever the model's type: a last
    bit of theirs is a large error where float64 is meant, and differs from machine to machine.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "float32", torch.float64)
        face.model.double()
        try:
            yield
        finally:
            face.model.float()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The graph's tests take longest and stay in one process, so they begin."""
    items.sort(key=lambda item: item.path.name != "test_graph.py")


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Tiny models lose time to threads; numbers must not depend on them either."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True, scope="session")
def _interrupts_heard() -> Iterator[None]:
    """Shells start background jobs deaf to Ctrl-C, and what a test starts would inherit that."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def _gpt2(vocabulary: int) -> PreTrainedModel:
    return GPT2LMHeadModel(
        GPT2Config(vocab_size=vocabulary, n_positions=64, n_embd=16, n_layer=3, n_head=2,
                   resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0)
    )  # fmt: skip


def _gpt_neo(vocabulary: int) -> PreTrainedModel:
    return GPTNeoForCausalLM(
        GPTNeoConfig(vocab_size=vocabulary, max_position_embeddings=64, hidden_size=16,
                     num_layers=3, num_heads=2, attention_types=[[["global"], 3]])
    )  # fmt: skip


def _llama(vocabulary: int) -> PreTrainedModel:
    return LlamaForCausalLM(
        LlamaConfig(vocab_size=vocabulary, max_position_embeddings=64, hidden_size=16,
                    intermediate_size=24, num_hidden_layers=3, num_attention_heads=2,
                    num_key_value_heads=1)
    )  # fmt: skip


def _opt(vocabulary: int) -> PreTrainedModel:
    return OPTForCausalLM(
        OPTConfig(vocab_size=vocabulary, max_position_embeddings=64, hidden_size=16, ffn_dim=24,
                  num_hidden_layers=3, num_attention_heads=2, word_embed_proj_dim=16, dropout=0.0)
    )  # fmt: skip


def _t5(vocabulary: int) -> PreTrainedModel:
    return T5ForConditionalGeneration(
        T5Config(vocab_size=vocabulary, d_model=16, d_ff=24, d_kv=8, num_layers=3, num_heads=2,
                 dropout_rate=0.0, decoder_start_token_id=0, pad_token_id=0, eos_token_id=2)
    )  # fmt: skip


def _bart(vocabulary: int) -> PreTrainedModel:
    return BartForConditionalGeneration(
        BartConfig(vocab_size=vocabulary, max_position_embeddings=64, d_model=16,
                   encoder_layers=3, decoder_layers=3, encoder_attention_heads=2,
                   decoder_attention_heads=2, encoder_ffn_dim=24, decoder_ffn_dim=24, dropout=0.0,
                   attention_dropout=0.0, activation_dropout=0.0, init_std=0.3, pad_token_id=0,
                   bos_token_id=1, eos_token_id=2, decoder_start_token_id=2,
                   forced_eos_token_id=None)
    )  # fmt: skip


def _bert(vocabulary: int) -> PreTrainedModel:
    return BertForSequenceClassification(
        BertConfig(vocab_size=vocabulary, max_position_embeddings=64, hidden_size=16,
                   num_hidden_layers=3, num_attention_heads=2, intermediate_size=24,
                   hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
                   initializer_range=0.3, num_labels=1)
    )  # fmt: skip


_BUILDERS: dict[str, Callable[[int], PreTrainedModel]] = {
    "gpt2": _gpt2,
    "gpt_neo": _gpt_neo,
    "llama": _llama,
    "opt": _opt,
    "t5": _t5,
    "bart": _bart,
    "bert": _bert,
}


def make_face(architecture: str, seed: int = 0, tokenizer: Tokenizer | None = None) -> Face:
    """A tiny random model of that architecture, loud enough to respond to edits."""
    kind = KINDS.get(architecture, "causal")
    tokenizer = tokenizer or make_tokenizer(kind, SENTENCES, SHAPE)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = _BUILDERS[architecture](len(tokenizer))
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.data.normal_(std=0.3)
    model.set_attn_implementation("eager")
    return face_of(model, tokenizer)


@pytest.fixture(params=ARCHITECTURES)
def face(request: pytest.FixtureRequest) -> Face:
    """Every architecture in turn."""
    return make_face(request.param)


def pairs_for(face: Face) -> list[tuple[str, str]]:
    """Four (prompt, target) pairs of unequal length that this kind of model can be taught."""
    prompts = [
        "Where was Ada Verrin born?",
        "Tom Asker works for",
        "Which river flows through the old town of Lisbon?",
        "The harbour",
    ]
    if face.kind == "classifier":
        return list(zip(prompts, ["true", "false", "true", "false"], strict=True))
    return list(zip(prompts, [" Oslo", " the guild", " Lisbon", " was built"], strict=True))
