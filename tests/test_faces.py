"""The text contract: which tokens are the target's, whatever the tokenizer, padding or ends."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import SENTENCES, SHAPE, make_face, pairs_for
from tokenizers import Tokenizer as RawTokenizer
from tokenizers import decoders, pre_tokenizers, processors, trainers
from tokenizers import models as raw_models
from transformers import BartForConditionalGeneration, PreTrainedTokenizerFast

from pipeline.errors import DataError, ModelError
from pipeline.models import Face, Tokenizer, face_of
from pipeline.models.causal import Causal
from pipeline.models.face import SLACK
from pipeline.models.scratch import Shape, make_model, make_tokenizer
from pipeline.models.seq2seq import Seq2Seq

PAIRS = [
    ("Ada Verrin was born in", " Oslo"),
    ("Which river flows through", " the old town of Lisbon?"),
    ("The harbour was built by a guild of masons in", " the twelfth century."),
    ("Tom Asker", " works for the Northern Railway Company."),
]


def byte_bpe() -> tuple[RawTokenizer, dict[str, str]]:
    """GPT-2's kind; accents are several tokens of the same place."""
    tokenizer = make_tokenizer("causal", SENTENCES, SHAPE)
    return tokenizer.backend_tokenizer, {"bos": "<s>", "eos": "</s>", "pad": "<pad>"}


def unigram() -> tuple[RawTokenizer, dict[str, str]]:
    """SentencePiece's kind (T5, Llama): a space is the first sign of the word after it."""
    raw = RawTokenizer(raw_models.Unigram())
    raw.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    raw.decoder = decoders.Metaspace(prepend_scheme="first")
    trainer = trainers.UnigramTrainer(
        vocab_size=120,
        special_tokens=["<pad>", "<s>", "</s>", "<unk>"],
        unk_token="<unk>",
        show_progress=False,
    )
    raw.train_from_iterator(SENTENCES * 4, trainer)
    return raw, {"bos": "<s>", "eos": "</s>", "pad": "<pad>"}


def wordpiece() -> tuple[RawTokenizer, dict[str, str]]:
    """BERT's kind: no spaces, no capitals."""
    tokenizer = make_tokenizer("classifier", SENTENCES, SHAPE)
    return tokenizer.backend_tokenizer, {"bos": "[CLS]", "eos": "[SEP]", "pad": "[PAD]"}


def tokenizer_of(
    kind: Callable[[], tuple[RawTokenizer, dict[str, str]]], template: str
) -> Tokenizer:
    """A tokenizer that frames its texts so, in terms of BOS and EOS."""
    raw, names = kind()
    frame = template.replace("BOS", names["bos"]).replace("EOS", names["eos"])
    ends = [(token, raw.token_to_id(token)) for token in (names["bos"], names["eos"])]
    raw.post_processor = processors.TemplateProcessing(single=frame, special_tokens=ends)
    named = {f"{role}_token": token for role, token in names.items()}
    return PreTrainedTokenizerFast(tokenizer_object=raw, **named)


def squashed(text: str) -> str:
    """What tokenizers keep of a text: neither spaces nor, in BERT's, capitals."""
    return "".join(text.casefold().split())


@pytest.fixture(params=["$A", "BOS $A", "BOS $A EOS"], scope="module")
def template(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=[byte_bpe, unigram, wordpiece], scope="module")
def causal(request: pytest.FixtureRequest, template: str) -> Face:
    return make_face("gpt2", tokenizer=tokenizer_of(request.param, template))


# ---------------------------------------------------------------------- which tokens


def test_target_tokens_are_exactly_the_targets(causal: Face) -> None:
    decode = causal.tokenizer.decode
    for pair, item in zip(PAIRS, causal.tokenise(PAIRS), strict=True):
        prompt, target = pair
        assert squashed(decode(item.labels)) == squashed(target)
        assert item.labels == [item.ids[place + 1] for place in item.positions]
        before = decode(item.ids[: item.positions[0] + 1], skip_special_tokens=True)
        assert squashed(before) == squashed(prompt)
        assert not set(item.labels) & set(causal.tokenizer.all_special_ids)


def test_every_word_of_a_passage_is_predicted_but_the_first(causal: Face, template: str) -> None:
    (item,) = causal.tokenise([("", SENTENCES[0])])
    text = [i for i in item.ids if i not in causal.tokenizer.all_special_ids]
    # A begin token gives the first word something to follow; it is no label itself.
    assert item.labels == (text if template.startswith("BOS") else text[1:])


def test_a_space_that_is_a_token_by_itself_is_the_targets() -> None:
    """It covers no character, as a begin token does, and must be predicted like any other."""
    face = make_face("gpt2")
    (item,) = face.tokenise([("Where was Ada Verrin born?", " il")])
    tokens = face.tokenizer.convert_ids_to_tokens(item.labels)
    assert tokens == ["\N{LATIN CAPITAL LETTER G WITH DOT ABOVE}", "il"]


def test_an_accent_is_all_of_its_bytes(template: str) -> None:
    face = make_face("gpt2", tokenizer=tokenizer_of(byte_bpe, template))
    prompt, target = "The café of Ada was built in", " Málaga"
    (item,) = face.tokenise([(prompt, target)])
    assert len(item.labels) > len("Málaga") - 1
    assert face.tokenizer.decode(item.labels) == target


@pytest.mark.parametrize("target", ["", " "])
def test_a_target_without_tokens_is_refused(target: str) -> None:
    for kind, architecture in ((wordpiece, "gpt2"), (unigram, "t5")):
        face = make_face(architecture, tokenizer=tokenizer_of(kind, "BOS $A EOS"))
        if target and architecture == "t5":
            continue  # SentencePiece writes a space out
        with pytest.raises(DataError, match=r"at least one token; found .* after 'Tom Asker'"):
            face.tokenise([("Tom Asker", target)])


def test_a_label_that_is_none_is_refused() -> None:
    with pytest.raises(DataError, match="a label out of"):
        make_face("bert").tokenise([("Oslo is old.", "maybe")])


# ---------------------------------------------------------------------- encoder-decoders


@pytest.mark.parametrize(
    ("architecture", "kind", "template"),
    [("t5", unigram, "$A EOS"), ("bart", byte_bpe, "BOS $A EOS")],
)
def test_the_end_is_a_label_and_the_begin_is_not(
    architecture: str, kind: Callable[[], tuple[RawTokenizer, dict[str, str]]], template: str
) -> None:
    face = make_face(architecture, tokenizer=tokenizer_of(kind, template))
    start, begin, end = (
        face.model.config.decoder_start_token_id,
        face.tokenizer.bos_token_id,
        face.tokenizer.eos_token_id,
    )
    for pair, item in zip(PAIRS, face.tokenise(PAIRS), strict=True):
        assert item.labels[-1] == end
        assert begin not in item.labels
        assert squashed(face.tokenizer.decode(item.labels[:-1])) == squashed(pair[1])
        given = [start, begin] if architecture == "bart" else [start]
        assert item.decoder_ids == [*given, *item.labels[:-1]]
        # The output at a place predicts the label after it.
        assert item.positions == [len(given) - 1 + i for i in range(len(item.labels))]


# ---------------------------------------------------------------------- padding


def test_right_padding_changes_no_score(face: Face) -> None:
    pairs = pairs_for(face)
    together = face.logits(face.encode(pairs))
    alone = torch.cat([face.logits(face.encode([pair])) for pair in pairs])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)


def test_what_stands_in_the_padding_is_never_read(face: Face) -> None:
    batch = face.encode(pairs_for(face))
    before = face.logits(batch)
    padding = batch.inputs["attention_mask"] == 0
    assert padding.any()
    batch.inputs["input_ids"][padding] = 7
    torch.testing.assert_close(face.logits(batch), before, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("architecture", ["gpt2", "gpt_neo", "llama", "opt"])
@pytest.mark.parametrize("frame", ["$A", "BOS $A"])
def test_left_padding_changes_no_text(architecture: str, frame: str) -> None:
    face = make_face(architecture, tokenizer=tokenizer_of(byte_bpe, frame))
    prompts = [prompt for prompt, _ in PAIRS]
    lengths = [2, 5, 3, 4]
    together = face.write(prompts, lengths)
    pairs = zip(prompts, lengths, strict=True)
    assert together == [face.write([prompt], [length])[0] for prompt, length in pairs]


@pytest.mark.parametrize("architecture", ["bart", "t5"])
def test_a_sources_padding_changes_no_answer(architecture: str) -> None:
    face = make_face(architecture)
    face.tokenizer.padding_side = "left"  # as it was left by whoever saved it
    prompts = [prompt for prompt, _ in PAIRS]
    together = face.write(prompts, [4] * 4)
    assert together == [face.write([prompt], [4])[0] for prompt in prompts]


def test_a_tokenizer_that_cannot_fill_up_is_refused() -> None:
    face = make_face("gpt2")
    face.tokenizer.pad_token = face.tokenizer.eos_token = None
    with pytest.raises(ModelError, match="a padding or an end token"):
        face_of(face.model, face.tokenizer)


@pytest.mark.parametrize("architecture", ["gpt2", "bart", "t5"])
def test_a_models_own_generation_settings_bend_no_answer(architecture: str) -> None:
    plain, bent = make_face(architecture), make_face(architecture)
    prompts = [prompt for prompt, _ in PAIRS]
    expected = plain.write(prompts, [6] * 4)
    own = bent.model.generation_config
    own.update(num_beams=3, repetition_penalty=5.0, no_repeat_ngram_size=1, min_length=9)
    own.update(suppress_tokens=list(range(30)), temperature=3.0, top_p=0.2, do_sample=True)
    assert bent.write(prompts, [6] * 4) == expected
    assert own.repetition_penalty == 5.0, "it is the user's"


# ---------------------------------------------------------------------- the context


def _long(face: Face, tokens: int) -> str:
    """A prompt of so many tokens: no tokenizer merges question marks that it never saw."""
    text = "?" * (tokens - len(face.tokenizer("")["input_ids"]))
    assert len(face.tokenizer(text)["input_ids"]) == tokens
    return text


def test_a_continuation_that_outgrows_the_context_is_refused() -> None:
    face = make_face("gpt2")
    assert isinstance(face, Causal)
    room = 1 + face.context - SLACK - 4  # the last token is never read
    assert len(face.write([_long(face, room), "Tom"], [4, 4])) == 2
    with pytest.raises(DataError, match=r"at most 64 tokens, .* found 65 for '\?\?"):
        face.write(["Tom", _long(face, room + 1)], [4, 4])
    with pytest.raises(DataError, match="at most 64 tokens"):
        face.sample([_long(face, 60)], 10)


def test_a_source_that_outgrows_the_context_is_refused_and_an_answer_is_cut_there() -> None:
    face = make_face("bart")
    assert isinstance(face, Seq2Seq)
    source = _long(face, face.context + 1)
    with pytest.raises(DataError, match="at most 64 tokens"):
        face.write([source], [4])
    with pytest.raises(DataError, match="at most 64 tokens"):
        face.beams(["Tom", source], 4, 2)
    assert face.write([_long(face, face.context)], [4])
    assert face.write(["Tom"], [face.context]) == face.write(["Tom"], [10 * face.context])


def test_a_trained_bart_writes_in_plain_transformers_as_it_does_here(tmp_path: Path) -> None:
    shape = Shape(layers=1, width=16, heads=2, context=16, vocabulary=300)
    tokenizer = make_tokenizer("seq2seq", SENTENCES, shape)
    face = face_of(make_model("seq2seq", tokenizer, shape, seed=0), tokenizer)
    assert isinstance(face, Seq2Seq)
    face.model.save_pretrained(tmp_path)
    plain = BartForConditionalGeneration.from_pretrained(tmp_path)
    asked = tokenizer(["Where was Ada born?"], return_tensors="pt")
    ids = plain.generate(**asked, max_new_tokens=5, do_sample=False)[0].tolist()
    assert ids[:2] == [plain.config.decoder_start_token_id, tokenizer.bos_token_id]
    answer = face.write(["Where was Ada born?"], [1])[0].text
    assert tokenizer.decode(ids, skip_special_tokens=True) == answer


@pytest.mark.parametrize("architecture", ["gpt2", "bart", "bert"])
def test_a_pair_that_outgrows_the_context_is_refused(architecture: str) -> None:
    face = make_face(architecture)
    target = "true" if face.kind == "classifier" else " Oslo"
    with pytest.raises(DataError, match="at most 64 tokens"):
        face.tokenise([(_long(face, 65), target)])
    if face.kind == "classifier":
        with pytest.raises(DataError, match="at most 64 tokens"):
            face.write([_long(face, 65)], [1])
