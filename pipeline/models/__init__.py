"""Models behind one face: open a folder or a hub name, whatever its architecture."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
)

from pipeline.errors import ModelError
from pipeline.models.causal import Causal
from pipeline.models.classifier import Classifier
from pipeline.models.face import Batch, Encoded, Face, Tokenizer, Written
from pipeline.models.layouts import Kind, layout_of
from pipeline.models.seq2seq import Seq2Seq

__all__ = ["Batch", "Encoded", "Face", "Tokenizer", "Written", "face_of", "load"]

_FACES: dict[Kind, type[Face]] = {
    "causal": Causal,
    "seq2seq": Seq2Seq,
    "classifier": Classifier,
}
_LOADERS = {
    "causal": AutoModelForCausalLM,
    "seq2seq": AutoModelForSeq2SeqLM,
    "classifier": AutoModelForSequenceClassification,
}


def load(source: str | Path, device: str = "cpu", dtype: torch.dtype = torch.float32) -> Face:
    """Open a Hugging Face folder or hub name.

    Attention is the eager kind: the fused one has no second derivative, which ENN needs.

    Raises:
        ModelError: there is no such model, or its architecture is not known.
    """
    if isinstance(source, Path) and not source.is_dir():
        raise ModelError(  # what transformers says takes it for a name on a hub
            expected=f"a folder with a model at {source}",
            found="no such folder",
            remedy="Run the stage that makes it: dvc repro.",
        )
    try:
        config = AutoConfig.from_pretrained(source)
        kind = layout_of(config).kind
        model = _LOADERS[kind].from_pretrained(
            source, dtype=dtype, attn_implementation="eager", use_safetensors=True
        )
        tokenizer = AutoTokenizer.from_pretrained(source)
    except (OSError, ValueError, SafetensorError) as error:
        where = "" if Path(source).is_dir() else "no folder of that name here, and on the hub: "
        raise ModelError(
            expected=f"a model with config, weights and tokenizer at {source}",
            found=where + str(error).splitlines()[0],
            remedy="Give a folder made by save_pretrained, or a hub name and a network.",
        ) from error
    return face_of(model.to(device), tokenizer)


def face_of(model: PreTrainedModel, tokenizer: Tokenizer) -> Face:
    """Put the right face on a model at hand.

    Raises:
        ModelError: its tokenizer has nothing to fill up short texts with.
    """
    if tokenizer.pad_token_id is None:
        if tokenizer.eos_token is None:
            raise ModelError(
                expected="a tokenizer with a padding or an end token, to fill up short texts",
                found="neither",
                remedy="Set its pad_token; padding is masked, so any token serves.",
            )
        # GPT models have none; padding is masked everywhere, so the end token serves.
        tokenizer.pad_token = tokenizer.eos_token
    return _FACES[layout_of(model.config).kind](model, tokenizer)
