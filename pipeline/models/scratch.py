"""Small models and tokenizers made on the spot, in Hugging Face format."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer as RawTokenizer
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from pipeline.errors import DataError
from pipeline.models.face import Tokenizer
from pipeline.models.layouts import Kind

_PAD, _BEGIN, _END, _UNKNOWN = "<pad>", "<s>", "</s>", "<unk>"


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Size of a transformer trained from scratch. Encoder-decoders have `layers` in each stack."""

    layers: int = 3
    width: int = 128
    heads: int = 4
    context: int = 64
    vocabulary: int = 2000
    tokenizer: str | None = None  # a folder with published vocabulary files; None trains one


def make_tokenizer(kind: Kind, texts: Iterable[str], shape: Shape) -> Tokenizer:
    """Train a tokenizer on the texts, or read one from the folder that `shape` names.

    Byte-level BPE for language models and encoder-decoders, WordPiece for classifiers.

    Raises:
        DataError: the folder has no vocabulary file that this kind can use.
    """
    if kind == "classifier":
        return _wordpiece(texts, shape)
    return _byte_bpe(texts, shape, closed=kind == "seq2seq")


def make_model(kind: Kind, tokenizer: Tokenizer, shape: Shape, seed: int) -> PreTrainedModel:
    """A randomly initialised GPT-2, BART or one-logit BERT, without dropout.

    BART and BERT normalise after each block, and at small widths their default initialisation
    (0.02) leaves them stuck; 1/sqrt(width) does not.
    """
    builders = {"causal": _gpt2, "seq2seq": _bart, "classifier": _bert}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return builders[kind](tokenizer, shape)


def _byte_bpe(texts: Iterable[str], shape: Shape, *, closed: bool) -> Tokenizer:
    specials = [_PAD, _BEGIN, _END, _UNKNOWN]
    if shape.tokenizer is None:
        raw = RawTokenizer(models.BPE())
        raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        trainer = trainers.BpeTrainer(
            vocab_size=shape.vocabulary,
            special_tokens=specials,
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        )
        raw.train_from_iterator(texts, trainer)
    else:
        folder = Path(shape.tokenizer)
        files = _need(folder, "encoder.json"), _need(folder, "vocab.bpe")
        raw = RawTokenizer(models.BPE.from_file(*files))
        raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        raw.add_special_tokens(specials)
    raw.decoder = decoders.ByteLevel()
    if closed:
        ends = [(token, raw.token_to_id(token)) for token in (_BEGIN, _END)]
        raw.post_processor = processors.TemplateProcessing(
            single=f"{_BEGIN} $A {_END}", special_tokens=ends
        )
    else:
        raw.post_processor = processors.ByteLevel(trim_offsets=True)
    return _wrap(raw, pad=_PAD, begin=_BEGIN, end=_END, unknown=_UNKNOWN)


def _wordpiece(texts: Iterable[str], shape: Shape) -> Tokenizer:
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    if shape.tokenizer is None:
        model = _train_wordpiece(list(texts), shape.vocabulary, specials)
    else:
        vocabulary = _need(Path(shape.tokenizer), "vocab.txt")
        model = models.WordPiece.from_file(vocabulary, unk_token="[UNK]")
    raw = _uncased(model)
    raw.add_special_tokens(specials)
    raw.decoder = decoders.WordPiece()
    ends = [(token, raw.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    raw.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    return _wrap(raw, pad="[PAD]", begin="[CLS]", end="[SEP]", unknown="[UNK]")


def _train_wordpiece(texts: list[str], size: int, specials: list[str]) -> models.WordPiece:
    """A vocabulary that is the same in every process.

    The trainer numbers continuations (##a) in the order of a hash map and breaks ties by number,
    so that left alone it makes another vocabulary each time. Naming them first fixes the order.
    """
    raw = _uncased(models.WordPiece(unk_token="[UNK]"))
    assert raw.normalizer is not None
    letters = {c for text in texts for c in raw.normalizer.normalize_str(text) if not c.isspace()}
    alphabet = sorted(letters)
    trainer = trainers.WordPieceTrainer(
        vocab_size=size,
        special_tokens=[*specials, *(f"##{letter}" for letter in alphabet)],
        initial_alphabet=alphabet,
        show_progress=False,
    )
    raw.train_from_iterator(texts, trainer)
    return models.WordPiece(vocab=raw.get_vocab(), unk_token="[UNK]")


def _uncased(model: models.WordPiece) -> RawTokenizer:
    raw = RawTokenizer(model)
    raw.normalizer = normalizers.BertNormalizer(lowercase=True)
    raw.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return raw


def _need(folder: Path, name: str) -> str:
    found = sorted(folder.rglob(name))
    if not found:
        raise DataError(
            expected=f"{name} in the tokenizer folder {folder}",
            found="no such file",
            remedy="Give a folder with the published vocabulary, or leave `tokenizer` empty.",
        )
    return str(found[0])


def _wrap(raw: RawTokenizer, *, pad: str, begin: str, end: str, unknown: str) -> Tokenizer:
    return PreTrainedTokenizerFast(
        tokenizer_object=raw,
        pad_token=pad,
        bos_token=begin,
        eos_token=end,
        unk_token=unknown,
        padding_side="right",
        model_input_names=["input_ids", "attention_mask"],
    )


def _common(tokenizer: Tokenizer, **others: Any) -> dict[str, Any]:
    return others | {
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "attn_implementation": "eager",
    }


def _gpt2(tokenizer: Tokenizer, shape: Shape) -> PreTrainedModel:
    config = GPT2Config(
        vocab_size=len(tokenizer),
        n_positions=shape.context,
        n_embd=shape.width,
        n_layer=shape.layers,
        n_head=shape.heads,
        activation_function="gelu_pytorch_tanh",  # gelu_new's function, in one kernel
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        **_common(tokenizer),
    )
    return GPT2LMHeadModel(config)


def _bart(tokenizer: Tokenizer, shape: Shape) -> PreTrainedModel:
    config = BartConfig(
        vocab_size=len(tokenizer),
        max_position_embeddings=shape.context,
        d_model=shape.width,
        encoder_layers=shape.layers,
        decoder_layers=shape.layers,
        encoder_attention_heads=shape.heads,
        decoder_attention_heads=shape.heads,
        encoder_ffn_dim=4 * shape.width,
        decoder_ffn_dim=4 * shape.width,
        dropout=0.0,
        attention_dropout=0.0,
        activation_dropout=0.0,
        init_std=shape.width**-0.5,
        decoder_start_token_id=tokenizer.eos_token_id,
        forced_eos_token_id=None,
        **_common(tokenizer),
    )
    model = BartForConditionalGeneration(config)
    assert model.generation_config is not None
    # Its targets' first token is no label in training: whoever lets it write has to give it.
    model.generation_config.update(forced_bos_token_id=tokenizer.bos_token_id)
    return model


def _bert(tokenizer: Tokenizer, shape: Shape) -> PreTrainedModel:
    config = BertConfig(
        vocab_size=len(tokenizer),
        max_position_embeddings=shape.context,
        hidden_size=shape.width,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        intermediate_size=4 * shape.width,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        initializer_range=shape.width**-0.5,
        **_common(tokenizer, num_labels=1),
    )
    return BertForSequenceClassification(config)
