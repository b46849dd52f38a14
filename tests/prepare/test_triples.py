"""MuST-C and CoVoST in their published layouts, tiny: they become corpora that the joint stage takes a step on."""

from pathlib import Path

import numpy as np
import pytest

from echox.audio import save_wav
from echox.data.manifest import read_audio, read_manifest
from echox.errors import InputError
from echox.prepare import text_pairs, triples, vocabulary
from echox.prepare.triples import Recipe, read_covost, read_must_c, run
from echox.train.loop import Run, train_step
from echox.train.stage_translate import build
from echox.train.stages import load_recipe
from echox.train.toy import PAIRS, toy_translation, write_encoder

RATE = 16_000
RECIPES = Path(__file__).parents[2] / "recipes"


def tone(seconds, hertz):
    return (0.3 * np.sin(2 * np.pi * hertz * np.arange(int(seconds * RATE)) / RATE)).astype(np.float32)


@pytest.fixture
def must_c(tmp_path):
    """Two talks of two utterances each."""
    folder = tmp_path / "MUST-C" / "en-de" / "data" / "train"
    (folder / "wav").mkdir(parents=True)
    lines, texts = [], PAIRS[:4]
    for talk in (1, 2):
        save_wav(folder / "wav" / f"ted_{talk}.wav", np.concatenate([tone(1, 200), tone(1.5, 300 * talk)]), RATE)
        for offset, duration in ((0.0, 1.0), (1.0, 1.5)):
            lines.append(
                f"- {{duration: {duration}, offset: {offset}, rW: 4, uW: 0, speaker_id: spk.{talk}, wav: ted_{talk}.wav}}\n"
            )
    (folder / "txt").mkdir()
    (folder / "txt" / "train.yaml").write_text("".join(lines))
    (folder / "txt" / "train.en").write_text("\n".join(texts) + "\n")
    (folder / "txt" / "train.de").write_text("\n".join(map(toy_translation, texts)) + "\n")
    return tmp_path / "MUST-C"


def recipe(tmp_path, root, **more):
    return Recipe.parse(
        {"stage": "triples", "out": tmp_path / "out", "format": "must-c", "root": root, "target": "de"} | more, "here"
    )


def test_must_c_is_cut_where_its_table_says(tmp_path, must_c):
    run(recipe(tmp_path, must_c, shard_utterances=3))
    records = read_manifest(tmp_path / "out" / "manifest.jsonl")
    assert [record["id"] for record in records] == ["ted_1_0", "ted_1_1", "ted_2_0", "ted_2_1"]
    assert [record["samples"] for record in records] == [16_000, 24_000, 16_000, 24_000]
    assert records[3]["text"] == PAIRS[3] and records[3]["translation"] == toy_translation(PAIRS[3])
    assert records[3]["speaker"] == "spk.2"
    wave = read_audio(records[3], tmp_path / "out")
    np.testing.assert_allclose(wave, tone(1.5, 600), atol=2e-4)
    assert len(list((tmp_path / "out").glob("shard-*.npy"))) == 2


def test_only_line_feeds_end_a_line_of_text(tmp_path, must_c):
    path = must_c / "en-de" / "data" / "train" / "txt" / "train.de"
    lines = ["eins\u2028zwei", "drei\x85vier", "f\x1cnf", "sechs"]
    path.write_text("\r\n".join(lines) + "\r\n", newline="")
    assert [one.translation for one in read_must_c(must_c, "en", "de", "train")] == lines


def test_what_is_long_or_has_no_text_is_left_out_and_counted(tmp_path, must_c, caplog):
    path = must_c / "en-de" / "data" / "train" / "txt" / "train.de"
    path.write_text("\nzwei\ndrei\nvier\n")
    run(recipe(tmp_path, must_c, longest_seconds=1.2))
    assert [row["id"] for row in read_manifest(tmp_path / "out" / "manifest.jsonl")] == ["ted_2_0"]
    told = f"3 of 4 utterances of train in {must_c} are left out: 1 without a text, 2 longer than 1.2 s."
    assert told in caplog.text
    path.write_text("\n\n\n\n")
    with pytest.raises(InputError, match=r"none of the utterances of train in .* can be used \(4 without a text\)"):
        run(recipe(tmp_path, must_c, out=str(tmp_path / "other")))


def test_the_paper_sized_recipe_takes_a_step_on_must_c_and_lets_the_encoder_learn_late(tmp_path, must_c):
    run(recipe(tmp_path, must_c))
    write_encoder(tmp_path / "encoder")
    pairs = tmp_path / "pairs.txt"
    pairs.write_text("".join(f"{text}\t{toy_translation(text)}\n" for text in PAIRS))
    texts, corpus = tmp_path / "texts", tmp_path / "out"
    made = {"stage": "text_pairs", "out": texts, "sources": [{"tatoeba": pairs}], "dev": 1, "test": 1}
    text_pairs.run(text_pairs.Recipe.parse(made, "here"))
    words = {"stage": "vocabulary", "out": tmp_path / "words", "texts": [texts / "train.jsonl"], "size": 44}
    vocabulary.run(vocabulary.Recipe.parse(words, "here"))
    toy = [
        "start=null", f"vocabulary={tmp_path / 'words'}", f"out={tmp_path / 'joint'}",
        "model={width: 16, ffn: 32, heads: 2, encoder_layers: 1, decoder_layers: 1, target: de}",
        f"data.corpora=[{corpus}]", f"data.held_out=[{corpus}]", f"encoder={{folder: {tmp_path / 'encoder'}, layer: 2}}",
        "schedule.encoders_from=0", "schedule.shrink_from=0", "schedule.translate_from=0", "train.precision=fp32",
    ]  # fmt: skip
    found = load_recipe(RECIPES / "must_c" / "joint.yaml", toy)
    stage = build(found)
    training = Run(stage, found.train)
    weights = stage.model.model.speech.linear.weight, stage.model.encoder.network.conv1.weight
    for step, learns in ((2999, False), (3000, True)):
        before = [one.clone() for one in weights]
        numbers = train_step(training, step)
        assert {"model/st", "model/mt", "model/ctc", "model/adversarial", "discriminator/bce"} <= set(numbers)
        assert [not one.equal(old) for one, old in zip(weights, before, strict=True)] == [True, learns]


def test_covost_joins_its_tables(tmp_path):
    (tmp_path / "clips").mkdir()
    save_wav(tmp_path / "clips" / "a.wav", tone(1, 250), RATE)
    (tmp_path / "validated.tsv").write_text('client_id\tpath\tsentence\nme\ta.wav\tSay "this.\nyou\tb.wav\tNot that.\n')
    table = "path\ttranslation\tsplit\na.wav\tSag das.\ttrain_covost\nb.wav\tNicht das.\ttest\nc.wav\tWeg.\ttrain\n"
    (tmp_path / "covost_v2.en_de.tsv").write_text(table)
    (row,) = read_covost(tmp_path, "en", "de", "train")
    assert (row.id, row.text, row.translation, row.speaker) == ("a", 'Say "this.', "Sag das.", "me")
    run(recipe(tmp_path, tmp_path, format="covost"))
    assert read_manifest(tmp_path / "out" / "manifest.jsonl")[0]["samples"] == 16_000
    assert [one.id for one in read_covost(tmp_path, "en", "de", "test")] == ["b"]


def test_a_silent_clip_is_left_out_and_a_missing_one_ends_the_stage(tmp_path, caplog):
    (tmp_path / "clips").mkdir()
    save_wav(tmp_path / "clips" / "a.wav", tone(1, 250), RATE)
    save_wav(tmp_path / "clips" / "b.wav", 0 * tone(1, 250), RATE)
    (tmp_path / "validated.tsv").write_text(
        "client_id\tpath\tsentence\nme\ta.wav\tThis.\nme\tb.wav\tThat.\nme\tc.wav\tIt.\n"
    )
    head, rows = "path\ttranslation\tsplit\n", ("a.wav\tDas.\ttrain\n", "b.wav\tDies.\ttrain\n", "c.wav\tEs.\ttrain\n")
    (tmp_path / "covost_v2.en_de.tsv").write_text(head + "".join(rows[:2]))
    run(recipe(tmp_path, tmp_path, format="covost"))
    assert [one["id"] for one in read_manifest(tmp_path / "out" / "manifest.jsonl")] == ["a"] and "b.wav" in caplog.text
    run(recipe(tmp_path, tmp_path, format="covost", out=str(tmp_path / "brief"), longest_seconds=0.5))
    assert f"{tmp_path / 'clips' / 'a.wav'} is longer than 0.5 s" in caplog.text
    (tmp_path / "covost_v2.en_de.tsv").write_text(head + "".join(rows))
    with pytest.raises(InputError, match="c.wav is missing"):
        run(recipe(tmp_path, tmp_path, format="covost", out=str(tmp_path / "other")))


def test_what_does_not_fit_is_said(tmp_path, must_c):
    text = must_c / "en-de" / "data" / "train" / "txt" / "train.de"
    text.write_text("eins\nzwei\n")
    with pytest.raises(InputError, match="has 4, 4 and 2 lines"):
        list(read_must_c(must_c, "en", "de", "train"))
    (text.parent / "train.yaml").write_text("5")
    with pytest.raises(InputError, match="has 0, 4 and 2 lines"):
        list(read_must_c(must_c, "en", "de", "train"))
    with pytest.raises(InputError, match="dev.yaml does not exist"):
        list(read_must_c(must_c, "en", "de", "dev"))
    (tmp_path / "validated.tsv").write_text("path\tsentence\n")
    with pytest.raises(InputError, match="lacks the column client_id"):
        list(read_covost(tmp_path, "en", "de", "train"))
    late = triples.Utterance("x", must_c / "en-de" / "data" / "train" / "wav" / "ted_1.wav", "a", "b", "", 9.0, 1.0)
    with pytest.raises(InputError, match="ends before x begins"):
        triples.said_by(late, recipe(tmp_path, must_c))
