"""Tokens as text: a character that spans tokens is spelt by its own bytes, and whole again where the tokens are joined."""

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from echox.models.llm import load_tokenizer, text_of_pieces, token_pieces
from echox.models.spelling import lay_out
from echox.text.prompt import encode
from echox.train.toy import write_llm

TEXT = "a “café” 東 \ufffd."


@pytest.fixture(scope="module", params=["byte level", "byte fallback"])
def tokenizer(request, tmp_path_factory):
    if request.param == "byte level":
        return load_tokenizer(write_llm(tmp_path_factory.mktemp("llm")))
    letters = ["a", "c", "f", " ", ".", *(f"<0x{n:02X}>" for n in range(256))]
    made = Tokenizer(models.BPE({letter: number for number, letter in enumerate(letters)}, [], byte_fallback=True))
    made.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    return PreTrainedTokenizerFast(tokenizer_object=made)


def test_split_characters_are_spelt_by_their_bytes(tokenizer):
    ids = encode(tokenizer, TEXT)
    pieces = token_pieces(tokenizer, ids)
    assert len(pieces) > len(TEXT) and text_of_pieces(pieces) == TEXT
    assert bytes(lay_out(pieces, True, None).letters_C.tolist()) == TEXT.encode()
    assert [token_pieces(tokenizer, [one])[0] for one in ids] == pieces  # as a stream asks for them


def test_half_a_character_is_no_text():
    assert text_of_pieces(["a", "\udce2\udc80"]) == "a\ufffd"


def test_words_of_sentencepiece_keep_their_space():
    made = Tokenizer(models.BPE({letter: number for number, letter in enumerate("▁acfé.")}, []))
    made.pre_tokenizer, made.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made)
    pieces = token_pieces(tokenizer, tokenizer("a café.").input_ids)
    assert "".join(pieces) == " a café."  # decoded one by one, tokens lose the space in front of a word
