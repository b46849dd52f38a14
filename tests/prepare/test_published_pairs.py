"""VoxPopuli S2ST and CVSS-C in the layout in which they are published, tiny; what the filters leave out."""

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

from echox.commands.prepare import app
from echox.data.manifest import read_audio, read_manifest
from echox.data.pairs import read_pairs
from echox.errors import InputError
from echox.prepare.pairs import Limits, read_cvss, read_voxpopuli, write_corpora, write_table


def speak(path, seconds, level=0.2, form=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    wave = level * np.sin(np.arange(int(16_000 * seconds)) * 0.1)
    soundfile.write(path, wave, 16_000, format=form)


@pytest.fixture
def voxpopuli(tmp_path):
    root = tmp_path / "transcribed_data" / "es"
    lines = ["src_id\tsrc_text\tsrc_speaker_id\ttgt_id\ttgt_text"]
    for number, (source, target, level) in enumerate(
        [(2, 2, 0.2), (2, 9, 0.2), (30, 30, 0.2), (2, 2, 0.0), (2, None, 0.2)]
    ):
        one, other = f"20120912-0900-PLENARY-{number}-es_a{number}", f"20120912-0900-PLENARY-{number}-en_a{number}"
        speak(root / "2012" / f"{one}.ogg", source, level)
        if target:
            speak(root / "en" / "2012" / f"{other}.ogg", target)
        lines.append(f"{one}\thola {number}\t77\t{other}\thello {number}")
    (root / "en" / "s2s_ref.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return tmp_path


def test_voxpopuli_as_published(voxpopuli, tmp_path, caplog):
    out = tmp_path / "out"
    assert write_corpora(read_voxpopuli(voxpopuli, "es", "en"), out, "train", Limits()) == 1
    (source,), (target,) = (read_manifest(out / side / "shard-00000.jsonl") for side in ("source", "target"))
    assert source["id"] == target["id"] and source["text"] == "hola 0" and target["text"] == "hello 0"
    assert source["speaker"] == "77" and "speaker" not in target
    assert len(read_audio(source, out / "source", 16_000)) == pytest.approx(32_000, abs=64)
    for why in (
        "1 with one side over 3 times",
        "1 outside 0.5 to 20 s",
        "1 silent or unreadable",
        "1 with a recording missing",
    ):
        assert why in caplog.text


@pytest.mark.parametrize("option", [("--split", "dev"), ("--common-voice", "cv")])
def test_options_of_cvss_are_not_voxpopulis(voxpopuli, tmp_path, option):
    done = CliRunner().invoke(app, ["pairs", "voxpopuli", str(voxpopuli), "--out", str(tmp_path / "out"), *option])
    assert done.exit_code == 2 and "VoxPopuli has only the" in done.output and not (tmp_path / "out").exists()


def test_voxpopuli_without_its_table_says_what_to_run(tmp_path):
    with pytest.raises(InputError, match="get_s2s_data for es and fr"):
        list(read_voxpopuli(tmp_path, "es", "fr"))


@pytest.fixture
def cvss(tmp_path):
    root, voices = tmp_path / "cvss_c_es_en_v1.0", tmp_path / "cv"
    for name in ("common_voice_es_1", "common_voice_es_2"):
        speak(root / "train" / f"{name}.mp3.wav", 2)
        speak(voices / "clips" / f"{name}.mp3", 2, form="MP3")
    (root / "train.tsv").write_text(
        "common_voice_es_1.mp3\tgood morning\ncommon_voice_es_2.mp3\tthank you\n", encoding="utf-8"
    )
    head = "client_id\tpath\tsentence\nspeaker9\tcommon_voice_es_1.mp3\tbuenos días\n"
    (voices / "validated.tsv").write_text(head, encoding="utf-8")
    return root, voices


def test_cvss_as_published(cvss, tmp_path):
    out = tmp_path / "out"
    assert write_corpora(read_cvss(*cvss, "train"), out, "train") == 2
    sources, targets = (read_manifest(out / side / "shard-00000.jsonl") for side in ("source", "target"))
    assert [row["text"] for row in sources] == ["buenos días", ""] and sources[0]["speaker"] == "speaker9"
    assert [row["text"] for row in targets] == ["good morning", "thank you"]
    assert (
        [row["id"] for row in sources] == [row["id"] for row in targets] == ["common_voice_es_1", "common_voice_es_2"]
    )


def test_cvss_that_is_not_there_is_named(cvss, tmp_path):
    with pytest.raises(InputError, match="clips is missing"):
        list(read_cvss(cvss[0], tmp_path / "nowhere", "train"))
    with pytest.raises(InputError, match=r"dev\.tsv"):
        list(read_cvss(*cvss, "dev"))
    (cvss[0] / "dev.tsv").write_text("no tab here\n")
    with pytest.raises(InputError, match="line 1 is not a clip"):
        list(read_cvss(*cvss, "dev"))


def test_nothing_left_is_an_error(voxpopuli, tmp_path):
    with pytest.raises(InputError, match="none of the pairs"):
        write_corpora(read_voxpopuli(voxpopuli, "es", "en"), tmp_path / "out", "train", Limits(longest=1.0))


def test_a_table_for_measuring_has_both_sides(cvss, tmp_path):
    out = tmp_path / "out"
    write_corpora(read_cvss(*cvss, "train"), out, "train")
    for _ in range(2):  # its own files are written again
        assert write_table(out / "source", out / "target", tmp_path / "test") == 2
    first, _ = read_pairs(tmp_path / "test" / "pairs.tsv")
    assert (first.source_text, first.target_text) == ("buenos días", "good morning")
    assert first.audio.is_file() and first.target_audio is not None and first.target_audio.is_file()
