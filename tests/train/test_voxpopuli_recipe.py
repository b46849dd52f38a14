"""The paper-size recipe of VoxPopuli on a tiny folder as it is published: pairs, units, one step; only the widths are a toy's."""

from pathlib import Path

import pytest
import soundfile
import torch

from echox.prepare.pairs import read_voxpopuli, write_corpora
from echox.train.stage_textless import build
from echox.train.stages import load_recipe, run_recipe
from echox.train.toy import sound_of, write_encoder

RECIPES = Path(__file__).parents[2] / "recipes"
ROOT = "out/voxpopuli-es-en"
SIZES = ["model.width=16", "model.heads=2", "model.ffn=32", "model.conv_channels=16"]
WORDS = "the capital of spain is a big red city".split()


@pytest.fixture
def published(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    spoken = tmp_path / "vp" / "transcribed_data" / "es"
    lines = ["src_id\tsrc_text\tsrc_speaker_id\ttgt_id\ttgt_text"]
    for number in range(8):
        one, other = f"20120912-0900-PLENARY-{number}-es_x", f"20120912-0900-PLENARY-{number}-en_x"
        said = " ".join(WORDS[number % 5 : number % 5 + 4])
        for place, pitch in ((spoken / "2012" / f"{one}.ogg", 1.1), (spoken / "en" / "2012" / f"{other}.ogg", 1.0)):
            place.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(place, sound_of(said, pitch), 16_000)
        lines.append(f"{one}\t\t1\t{other}\t")
    (spoken / "en" / "s2s.tsv").write_text("\n".join(lines) + "\n")
    return tmp_path


def test_the_recipe_takes_a_step(published):
    write_encoder(published / "encoder")
    units = ["encoder=encoder", "language={units: 16, vocabulary_size: 40, min_count: 2, held_out: 0.2}"]
    for part, kind in (("train", "units"), ("dev", "dev_units")):
        assert write_corpora(read_voxpopuli(published / "vp", "es", "en"), published / ROOT / part, part) == 8
        for side in ("source", "target"):
            places = [f"corpus={ROOT}/{part}/{side}", f"out={ROOT}/{kind}_{side}"]
            given = [f"given={ROOT}/units_{side}"] if part == "dev" else []
            run_recipe(RECIPES / "debug" / "units.yaml", [*units, *places, *given])
    stage = build(load_recipe(RECIPES / "textless" / "voxpopuli.yaml", SIZES))
    assert len(stage.model.translator.layers) == 12 and stage.model.reads == {
        "source_units": 6,
        "source_words": 8,
        "target_words": 12,
    }
    loss = stage.players[0].loss(stage.model(stage.batches[0]), 0)
    loss.total.backward()
    assert torch.isfinite(loss.total) and "gradient_cosine" in loss.parts
