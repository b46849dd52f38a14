"""Text pairs: no sentence of the held-out parts is trained on, on either side."""

import gzip

import pytest

from echox.data.manifest import read_jsonl, texts_of, write_jsonl
from echox.errors import ConfigError, InputError
from echox.prepare import vocabulary
from echox.prepare.text_pairs import PairSource, Recipe, keys, run, split, usable

PAIRS = [
    (f"this is the number {n} of all", f"este es el {n}") for n in "one two three four five six seven eight".split()
]


def test_parts_share_no_sentence_on_either_side():
    pairs = usable(
        [*PAIRS, ("This is the number ONE of all!", "el primero"), ("one more of the same", "este es el one")], 50
    )
    parts = split(pairs, dev=2, test=4, words=(4, 14), spoken_words=(4, 14))
    held = [pair for name in ("dev", "test") for pair in parts[name]]
    sides = [{keys(pair)[side] for pair in held} for side in (0, 1)]
    assert len(held) == 6 and len(sides[0]) == 6
    for pair in parts["train"]:
        assert keys(pair)[0] not in sides[0] and keys(pair)[1] not in sides[1]
    if keys(("", "este es el one"))[1] in sides[1]:
        assert ("one more of the same", "este es el one") not in parts["train"]
    assert {keys(pair)[0] for pair in parts["spoken"]} <= {keys(pair)[0] for pair in parts["train"]}


def test_spoken_sentences_may_be_longer_than_what_is_measured():
    pairs = usable([*PAIRS, ("a", "uno"), ("this one is longer than any that is held out here", "largo")], 50)
    parts = split(pairs, dev=2, test=2, words=(1, 7), spoken_words=(7, 11))
    assert max(len(source.split()) for source, _ in parts["dev"] + parts["test"]) <= 7
    assert {len(source.split()) for source, _ in parts["spoken"]} == {7, 11}


def test_all_translations_of_a_held_out_sentence_are_held_out():
    pairs = [("we all go home now", f"vamos {n}") for n in range(5)] + [("they stay here for long", "vamos 3")]
    parts = split(usable(pairs, 50), dev=1, test=0, words=(4, 14), spoken_words=(4, 14))
    assert len(parts["dev"]) == 1
    if keys(parts["dev"][0])[0] == "we all go home now":
        assert parts["train"] == []  # the other sentence has one of its translations
    else:
        assert all(pair[1] != "vamos 3" for pair in parts["train"])


def test_files_are_written_from_both_formats(tmp_path):
    (tmp_path / "pairs.txt").write_text("".join(f"{a}\t{b}\tCC-BY\n" for a, b in PAIRS[:4]))
    (tmp_path / "x.en.gz").write_bytes(gzip.compress("\n".join(a for a, _ in PAIRS[4:]).encode()))
    (tmp_path / "x.es").write_text("\n".join(b for _, b in PAIRS[4:]))
    sources = [{"tatoeba": tmp_path / "pairs.txt"}, {"lines": [tmp_path / "x.en.gz", tmp_path / "x.es"]}]
    recipe = {"stage": "text_pairs", "out": tmp_path / "out", "sources": sources, "dev": 1, "test": 2}
    for _ in range(2):  # its own files are written again
        run(Recipe.parse(recipe, "here"))
    rows = {name: read_jsonl(tmp_path / "out" / f"{name}.jsonl") for name in ("train", "dev", "test", "spoken")}
    assert [len(rows[name]) for name in rows] == [5, 1, 2, 5]
    assert set(rows["test"][0]) == {"id", "text", "translation"}


def test_lines_of_both_sides_belong_together_whatever_they_hold(tmp_path):
    (tmp_path / "a").write_text("one\u2028two\nthree\n")
    (tmp_path / "b").write_text("uno dos\ntres\n")
    source = PairSource(lines=(tmp_path / "a", tmp_path / "b"))
    assert list(source.read()) == [("one\u2028two", "uno dos"), ("three", "tres")]


def test_what_cannot_be_read_is_said(tmp_path):
    (tmp_path / "a").write_text("one\ntwo\n")
    (tmp_path / "b").write_text("uno\n")
    recipe = {"stage": "text_pairs", "out": tmp_path / "out", "sources": [{"lines": [tmp_path / "a", tmp_path / "b"]}]}
    with pytest.raises(InputError, match="has 2 lines and"):
        run(Recipe.parse(recipe, "here"))
    with pytest.raises(InputError, match="no line with a tab"):
        run(Recipe.parse(recipe | {"sources": [{"tatoeba": tmp_path / "a"}]}, "here"))
    with pytest.raises(ConfigError, match="one of tatoeba and lines"):
        Recipe.parse(recipe | {"sources": [{"url": "x"}]}, "here")
    assert not (tmp_path / "out").exists()


def test_a_line_whose_text_is_no_text_is_named(tmp_path):
    texts = tmp_path / "pairs.jsonl"
    recipe = vocabulary.Recipe.parse({"stage": "vocabulary", "out": tmp_path / "out", "texts": [texts]}, "here")
    for name in ("text", "translation"):
        write_jsonl(texts, [{"text": "one", "translation": "uno"}, {"text": "two", "translation": "dos"} | {name: 7}])
        with pytest.raises(InputError, match=rf"pairs\.jsonl line 2 has a `{name}` that is no text"):
            vocabulary.run(recipe)
    write_jsonl(texts, [{"text": "One"}, {"question": "Two?"}, {}])
    assert texts_of(texts) == ["One", "Two?", ""]
    write_jsonl(texts, [{"text": "One"}, {"question": ["Two?"]}])
    with pytest.raises(InputError, match=r"pairs\.jsonl line 2 has a `text` or `question` that is no text"):
        texts_of(texts)
