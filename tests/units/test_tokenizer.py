import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from benchmarks.toy_units import toy_corpus
from echox.errors import ConfigError, InputError, ModelError, OutputError
from echox.units.estimate import LexiconConfig
from echox.units.extractor import UnitsMeta, save_centroids
from echox.units.lexicon import Bigrams, Lexicon
from echox.units.segment import to_text
from echox.units.tokenizer import UnitTokenizer

UNITS = 20
DECODERS = ["unigram", "bigram", "bpe"]
SEQUENCES = toy_corpus(words=40, units=UNITS, sequences=200, length=8, seed=2).sequences


@cache
def trained(decoder: str) -> UnitTokenizer:
    return UnitTokenizer.train(SEQUENCES, LexiconConfig(units=UNITS, vocabulary_size=80), decoder)  # type: ignore


@settings(max_examples=40, deadline=None)
@given(ids=st.lists(st.integers(0, UNITS - 1), max_size=40))
@pytest.mark.parametrize("decoder", DECODERS)
def test_every_sequence_round_trips(decoder: str, ids: list[int]) -> None:
    tokenizer = trained(decoder)
    tokens = tokenizer.encode(ids)
    assert tokenizer.decode(tokens) == ids
    assert all(3 <= token < tokenizer.vocab_size for token in tokens)


@pytest.mark.parametrize("decoder", DECODERS)
def test_words_are_longer_than_units_and_batches_equal_single_ones(decoder: str) -> None:
    tokenizer = trained(decoder)
    batch = tokenizer.encode_batch(SEQUENCES[:30])
    assert [row.tolist() for row in batch] == [tokenizer.encode(ids) for ids in SEQUENCES[:30]]
    assert sum(map(len, SEQUENCES[:30])) > 1.5 * sum(map(len, batch))


@pytest.mark.parametrize("decoder", DECODERS)
def test_save_and_load_are_bit_equal(decoder: str, tmp_path: Path) -> None:
    tokenizer = trained(decoder)
    tokenizer.save(tmp_path / "a")
    loaded = UnitTokenizer.load(tmp_path / "a")
    loaded.save(tmp_path / "b")
    for path in sorted((tmp_path / "a").iterdir()):
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes(), path.name
    assert loaded.lexicon.log_probs.tobytes() == tokenizer.lexicon.log_probs.tobytes()
    assert [loaded.encode(ids) for ids in SEQUENCES[:20]] == [tokenizer.encode(ids) for ids in SEQUENCES[:20]]


@pytest.mark.parametrize(("count", "kind"), [(2**31 - 1, np.int32), (2**31, np.int64)])
def test_counts_are_written_in_the_width_that_they_need(tmp_path: Path, count: int, kind: type) -> None:
    from safetensors.numpy import load_file

    bigrams = Bigrams(np.array([0, 1, 1]), np.array([1], np.int32), np.array([count]))
    UnitTokenizer(Lexicon(2, ((0,), (1,)), np.full(2, -1.0), bigrams)).save(tmp_path)
    assert load_file(tmp_path / "bigrams.safetensors")["counts"].dtype == kind
    assert UnitTokenizer.load(tmp_path).lexicon.bigrams.counts.tolist() == [count]


@pytest.mark.parametrize("decoder", DECODERS)
def test_hugging_face_loads_it_and_agrees(decoder: str, tmp_path: Path) -> None:
    tokenizer = trained(decoder)
    tokenizer.save(tmp_path)
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    assert isinstance(theirs, PreTrainedTokenizerFast)
    assert len(theirs) == tokenizer.vocab_size
    assert (theirs.pad_token_id, theirs.bos_token_id, theirs.eos_token_id) == (0, 1, 2)
    # tokenizer.json carries the unigram decoder of a bigram unit language
    same = UnitTokenizer(tokenizer.lexicon, "unigram") if decoder == "bigram" else tokenizer
    for ids in SEQUENCES[:50]:
        tokens = theirs(to_text(ids)).input_ids
        assert tokens == same.encode(ids)
        assert theirs.decode(tokens) == to_text(ids)


def test_hugging_face_loads_it_beside_a_units_config(tmp_path: Path) -> None:
    trained("bigram").save(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"encoder": "tiny", "k": UNITS}))
    assert len(AutoTokenizer.from_pretrained(tmp_path)) == trained("bigram").vocab_size


def test_words_print_as_joined_ids_and_specials_by_name() -> None:
    tokenizer = trained("unigram")
    long = next(token for token in range(tokenizer.vocab_size) if len(tokenizer.word(token)) == 3)
    a, b, c = tokenizer.word(long)
    assert tokenizer.text([1, 3, long, 2]) == f"<s> 0 {a}_{b}_{c} </s>"


def test_specials_spell_nothing_and_illegal_tokens_are_refused() -> None:
    tokenizer = trained("bigram")
    specials = [tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id]
    assert tokenizer.decode([*specials, 3, 4]) == [0, 1]
    for illegal in (-1, tokenizer.vocab_size):
        with pytest.raises(InputError, match=f"unit token {illegal} is outside"):
            tokenizer.decode([3, illegal])
        with pytest.raises(InputError, match="outside the vocabulary"):
            tokenizer.word(illegal)


@pytest.mark.parametrize("decoder", DECODERS)
def test_units_outside_the_language_are_refused(decoder: str) -> None:
    with pytest.raises(InputError, match=f"unit {UNITS} is outside"):
        trained(decoder).encode([0, UNITS])
    with pytest.raises(InputError, match="never negative"):
        trained(decoder).encode([-1])


def test_an_unknown_decoder_is_refused() -> None:
    with pytest.raises(ConfigError, match="decoder 'magic'"):
        UnitTokenizer(trained("unigram").lexicon, "magic")  # type: ignore[arg-type]


def edit(name: str, **changes: object):
    def damage(folder: Path) -> None:
        record = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps(record | changes))

    return damage


def edit_vocabulary(change):
    def damage(folder: Path) -> None:
        record = json.loads((folder / "tokenizer.json").read_text())
        record["model"]["vocab"] = change(record["model"]["vocab"])
        (folder / "tokenizer.json").write_text(json.dumps(record))

    return damage


def write_bigrams(**changes: np.ndarray):
    def damage(folder: Path) -> None:
        from safetensors.numpy import load_file, save_file

        path = folder / "bigrams.safetensors"
        save_file(load_file(path) | changes, path)

    return damage


@pytest.mark.parametrize(
    ("damage", "names"),
    [
        (lambda f: (f / "tokenizer.json").unlink(), "tokenizer.json does not exist"),
        (lambda f: (f / "unit_language.json").unlink(), "unit_language.json does not exist"),
        (lambda f: (f / "bigrams.safetensors").unlink(), "bigrams.safetensors is missing"),
        (lambda f: (f / "tokenizer.json").write_bytes(b"\xff\xfe"), "tokenizer.json is not UTF-8 text"),
        (lambda f: (f / "bigrams.safetensors").write_bytes(b"\x08" + b"\0" * 7 + b"{" * 9), "bigrams.safetensors is"),
        (edit("unit_language.json", units="20"), "unit_language.json should hold"),
        (edit("unit_language.json", format=2), "install a newer echox"),
        (edit("unit_language.json", units=0), "cannot be"),
        (edit("unit_language.json", units=10**12, words=10**13), "cannot be"),
        (edit("unit_language.json", strength=float("nan")), "strength"),
        (edit("unit_language.json", units=19), "broken"),
        (edit("unit_language.json", words=7, units=7), "tokenizer.json is not the tokenizer"),
        (edit("unit_language.json", decoder="bpe"), "tokenizer.json is not the tokenizer"),
        (edit("tokenizer.json", model=[]), "tokenizer.json is not the tokenizer"),
        (edit("tokenizer.json", model={"type": "Unigram", "vocab": 3}), "tokenizer.json is not the tokenizer"),
        (edit_vocabulary(lambda rows: [[1, 2]] * len(rows)), "tokenizer.json is not the tokenizer"),
        (edit_vocabulary(lambda rows: [*rows[:-1], [rows[-1][0], -0.5]]), "does not belong"),
        (edit_vocabulary(lambda rows: [*rows[:-1], ["A", rows[-1][1]]]), "outside 0 to 19"),
        (edit_vocabulary(lambda rows: [*rows[:-1], ["", rows[-1][1]]]), "is empty"),
        (write_bigrams(counts=np.zeros(0, np.int64)), "bigram table"),
        (write_bigrams(counts=np.zeros((2, 2), np.float32)), "bigram table"),
        (write_bigrams(log_probs=np.zeros(3, np.float32)), "does not belong"),
        (write_bigrams(extra=np.zeros(1)), "bigrams.safetensors holds"),
    ],
)
def test_a_broken_folder_is_named_in_one_sentence(tmp_path: Path, damage, names: str) -> None:
    trained("bigram").save(tmp_path)
    damage(tmp_path)
    with pytest.raises(ModelError, match=names) as caught:
        UnitTokenizer.load(tmp_path)
    assert "\n" not in str(caught.value)
    assert tmp_path.name in str(caught.value)


@pytest.mark.parametrize("merges", [["ab"], [["A", "B"]], [["A", 3]], [[]], 5, [{"left": 1}]], ids=str)
def test_broken_merges_are_refused(tmp_path: Path, merges: object) -> None:
    trained("bpe").save(tmp_path)
    record = json.loads((tmp_path / "tokenizer.json").read_text())
    record["model"]["merges"] = merges
    (tmp_path / "tokenizer.json").write_text(json.dumps(record))
    with pytest.raises(ModelError, match=r"tokenizer\.json is not|is broken"):
        UnitTokenizer.load(tmp_path)


def test_a_tokenizer_of_something_else_is_not_replaced(tmp_path):
    (tmp_path / "tokenizer.json").write_text("an LLM's")
    (tmp_path / "config.json").write_text("an LLM's")
    words = tuple((unit,) for unit in range(4))
    with pytest.raises(OutputError, match="tokenizer.json of something else"):
        UnitTokenizer(Lexicon(4, words, np.full(4, -np.log(4)), Bigrams.empty(4))).save(tmp_path)
    with pytest.raises(OutputError, match="config.json of something else"):
        save_centroids(tmp_path, np.zeros((4, 2), np.float32), UnitsMeta("x", "0", 1, "own", 16_000, 320, 4))
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        "tokenizer.json": "an LLM's",
        "config.json": "an LLM's",
    }
