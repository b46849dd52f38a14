"""Judges: which folders are one, whose ear they have, and (with pretrained weights) that both kinds hear the same."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from echox.errors import InputError
from echox.eval.ears import warn_if_own_ear, whisper_size
from echox.eval.judges import TransformersJudge, find_judge, load_judge
from echox.eval.scorers.sound import errors_between

SAID = "The capital of France is Paris."


def folder(path, config, weights="model.safetensors"):
    """Writes a folder with a config.json and empty weights, and returns it."""
    path.mkdir(parents=True)
    (path / "config.json").write_text(config if isinstance(config, str) else json.dumps(config))
    (path / weights).write_bytes(b"x")
    (path / "tokenizer.json").write_text("{}")
    return path


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"model_type": "llama", "architectures": ["LlamaForCausalLM"]}, "LlamaForCausalLM, which is no speech"),
        ({"model_type": "whisper", "architectures": ["WhisperEncoder"]}, "WhisperEncoder, which is no speech"),
        ({}, "an unnamed model"),
        ("{", "is not JSON"),
        ("[]", "no JSON object"),
    ],
)
def test_a_folder_of_another_kind_of_model_is_no_judge(tmp_path, config, told):
    with pytest.raises(InputError, match=told):
        find_judge(str(folder(tmp_path / "m", config)))


@pytest.mark.parametrize(
    "config",
    [
        {"model_type": "whisper", "architectures": ["WhisperForConditionalGeneration"]},
        {"model_type": "wav2vec2", "architectures": ["Wav2Vec2ForCTC"]},
        {"model_type": "speech_to_text", "architectures": ["Speech2TextForConditionalGeneration"]},
    ],
)
def test_recognisers_are_judges(tmp_path, config):
    assert find_judge(str(folder(tmp_path / "m", config))) == tmp_path / "m"


def test_a_judge_with_the_models_own_encoder_is_told(tmp_path):
    tiny = {"model_type": "whisper", "d_model": 384, "encoder_layers": 4}
    folder(tmp_path / "mini" / "encoder", tiny)
    judges = {
        name: folder(tmp_path / name / "ct2", {"suppress_ids": []}, "model.bin")
        for name in ("whisper-tiny.en", "whisper-base")
    }
    own = folder(tmp_path / "ears", tiny)  # sizes tell, whatever the folder is called
    cached = folder(tmp_path / "models--Systran--faster-whisper-tiny" / "snapshots" / "1a", {}, "model.bin")
    told = []
    for judge in (judges["whisper-tiny.en"], own, cached):
        warn_if_own_ear(tmp_path / "mini", judge, told.append)
    assert len(told) == 3 and all("whisper-tiny's encoder" in line for line in told)
    warn_if_own_ear(tmp_path / "mini", judges["whisper-base"], told.append)
    warn_if_own_ear(None, judges["whisper-tiny.en"], told.append)
    warn_if_own_ear(tmp_path / "mini", None, told.append)
    assert len(told) == 3
    released = folder(tmp_path / "released", {"mm_audio_tower": "openai/whisper-large-v3"})
    assert whisper_size(released) == "large" and whisper_size(folder(tmp_path / "x", {})) == ""


@pytest.mark.pretrained
def test_both_kinds_of_whisper_folder_hear_what_a_voice_says():
    hibari = pytest.importorskip("hibari")
    voice = hibari.Hibari(threads=1)
    import soxr

    wave = soxr.resample(np.asarray(voice(SAID, speed=1.0, seed=0), np.float32), voice.sample_rate, 16_000)
    folder = Path(os.environ["ECHOX_WEIGHTS"]) / "whisper-tiny.en"
    fast, slow = load_judge("whisper-tiny.en"), TransformersJudge(folder, "cpu", "en")
    assert "15 s window, sha256" in fast.name and "whisper-tiny.en (ctranslate2" in fast.name
    heard = fast.transcribe([wave, np.zeros(16_000, np.float32), np.zeros(0, np.float32)])
    assert heard[1:] == ["", ""]
    assert errors_between(SAID, heard[0]).word_edits == errors_between(SAID, slow.transcribe([wave])[0]).word_edits == 0
