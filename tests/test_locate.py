"""Where subjects end, in every kind of tokenizer, and what is read there."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from architectures import make_causal, requests
from conftest import SENTENCES, SHAPE, make_face
from tokenizers import Tokenizer as Raw
from tokenizers import decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from pipeline import mentions
from pipeline.editing import locate
from pipeline.editing.patch import Patch, applied
from pipeline.editing.updates import Factors
from pipeline.errors import DataError, ModelError
from pipeline.models import Tokenizer
from pipeline.models.causal import Causal
from pipeline.models.layouts import blocks, downs
from pipeline.models.scratch import make_tokenizer

TEXTS = (*SENTENCES, "Zoë Ångström wrote from Kraków.", "日本 is far from Oslo.")


def sentencepiece() -> Raw:
    raw = Raw(models.Unigram())
    raw.pre_tokenizer = pre_tokenizers.Metaspace()
    raw.decoder = decoders.Metaspace()
    specials = ["<pad>", "<s>", "<unk>"]
    trainer = trainers.UnigramTrainer(
        vocab_size=120, special_tokens=specials, unk_token="<unk>", show_progress=False
    )
    raw.train_from_iterator(TEXTS, trainer)
    return raw


def make(kind: str, *, begin: bool) -> Tokenizer:
    if kind == "sentencepiece":
        raw = sentencepiece()
    else:
        family = "classifier" if kind == "wordpiece" else "causal"
        raw = make_tokenizer(family, TEXTS, replace(SHAPE, vocabulary=300))._tokenizer
    first = "[CLS]" if kind == "wordpiece" else "<s>"
    if begin:
        raw.post_processor = processors.TemplateProcessing(
            single=f"{first} $A", special_tokens=[(first, raw.token_to_id(first))]
        )
    elif kind == "wordpiece":
        raw.post_processor = processors.TemplateProcessing(single="$A", special_tokens=[])
    pad = "[PAD]" if kind == "wordpiece" else "<pad>"
    return PreTrainedTokenizerFast(tokenizer_object=raw, pad_token=pad, bos_token=first)


@pytest.mark.parametrize("begin", [False, True])
@pytest.mark.parametrize("kind", ["byte_bpe", "sentencepiece", "wordpiece"])
def test_the_token_found_ends_the_subject(kind: str, begin: bool) -> None:
    """Cut after it, the text holds the subject's last character; one token less, it does not."""
    face = make_face("gpt2", tokenizer=make(kind, begin=begin))
    for prompt, subject in (
        ("Ada Verrin was born in", "Ada Verrin"),
        ("Where was Ada Verrin", "Ada Verrin"),
        ("Which river flows through the old town of Lisbon, if any", "the old town of Lisbon"),
        ("Zoë Ångström wrote from Kraków", "Zoë Ångström"),
        ("Zoë Ångström wrote from Kraków", "Kraków"),
        ("日本 is far", "日本"),
        ("Tom Asker and Tom Asker's guild", "Tom Asker"),
    ):
        request = requests()[0]
        request = replace(request, prompt=prompt, target=" Oslo", subject=subject)
        ((spot,),) = locate.spots(face, [request], ())
        text = prompt + " Oslo"
        offsets = face.tokenizer(text, return_offsets_mapping=True)["offset_mapping"]
        last = prompt.rindex(subject) + len(subject)
        assert offsets[spot.at][0] < last <= offsets[spot.at][1]
        assert spot.encoded.ids == face.tokenizer(text)["input_ids"]
        assert not any(start < last <= end for start, end in offsets[spot.at + 1 :])


def test_whole_words_come_before_parts_of_words() -> None:
    assert mentions.last_character("Adam met Ada in Adamstown", "Ada") == 11
    assert mentions.last_character("Adam met Eva in Adamstown", "Ada") == 18


@pytest.mark.parametrize("subject", ["Eva", ""])
def test_a_prompt_without_its_subject_is_refused(subject: str) -> None:
    with pytest.raises(DataError, match="as its prompt spells it"):
        mentions.last_character("Adam met Ada", subject)


def test_contexts_follow_from_the_seed_alone() -> None:
    face = make_causal("gpt2")
    config = locate.Config(free=((3, 2), (5, 1)), opened=((4, 2),))
    torch.manual_seed(1)
    one = locate.write_contexts(face, config, 0)
    state = torch.get_rng_state()
    assert one == locate.write_contexts(face, config, 0)
    assert torch.equal(state, torch.get_rng_state())
    assert one != locate.write_contexts(face, config, 1)
    assert {kind: len(texts) for kind, texts in one.items()} == {"free": 3, "opened": 10, "none": 0}
    assert all(text.endswith(". ") for texts in one.values() for text in texts)
    assert one["opened"][0].startswith("The")
    with pytest.raises(ModelError, match="causal models alone"):
        locate.write_contexts(make_face("bart"), config, 0)


def test_a_context_that_does_not_fit_is_left_away() -> None:
    face = make_causal("gpt2")
    found = locate.spots(face, requests(), ("Now. ", "Now. " * 40))
    for bare, short, long in found:
        assert long == bare
        assert short.at > bare.at


def test_reading_is_what_hooks_see_in_a_whole_pass() -> None:
    """Each text under its own edit, whatever the batches are."""
    face = make_causal("gpt2")
    site, block = downs(face.model)[1], blocks(face.model)[2]
    where = [spots[0] for spots in locate.spots(face, requests(), ())]
    draw = torch.Generator().manual_seed(0)
    left, right = (
        torch.randn(2, 1, size, generator=draw, dtype=torch.float64) for size in (16, 64)
    )
    patch = Patch({downs(face.model)[0]: Factors(left, right)})
    rows = [0, 1, 1, 0]
    found = locate.read(face, where, [site], block, patch=patch, rows_B=rows, size=3)
    assert found.stream_BD is not None
    for number, spot in enumerate(where):
        seen: dict[str, torch.Tensor] = {}
        module, whole = face.model.get_submodule(site), face.model.get_submodule(block)
        hooks = [
            module.register_forward_pre_hook(lambda _m, x: seen.update(key=x[0])),  # noqa: B023
            whole.register_forward_hook(lambda _m, _x, y: seen.update(stream=y)),  # noqa: B023
        ]
        with applied(face.model, patch.select(torch.tensor([rows[number]]))):
            face.model(torch.tensor([spot.encoded.ids]))
        for hook in hooks:
            hook.remove()
        torch.testing.assert_close(found.key_BI[site][number], seen["key"][0, spot.at])
        torch.testing.assert_close(found.stream_BD[number], seen["stream"][0, spot.at])
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in face.model.modules())


def test_a_blank_that_no_token_covers_is_named() -> None:
    with pytest.raises(DataError, match="in a letter, not in a blank"):
        mentions.token_of([(0, 3), (4, 9)], 3)


def test_a_tokenizer_without_a_begin_writes_no_contexts() -> None:
    face = make_face("gpt2")
    face.tokenizer.bos_token = face.tokenizer.eos_token = None
    with pytest.raises(ModelError, match="a begin or an end token"):
        locate.write_contexts(face, locate.Config(), 0)


@pytest.mark.parametrize("begin", [False, True])
def test_what_is_written_from_nothing_begins_once(begin: bool) -> None:
    face = make_face("gpt2", tokenizer=make("byte_bpe", begin=begin))
    assert isinstance(face, Causal)
    assert face.tokenizer(face.begin)["input_ids"] == [face.tokenizer.bos_token_id]
