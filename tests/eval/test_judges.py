"""Judges: which folders are one, whose ear they have, and (with pretrained weights) that both kinds hear the same."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from echox.errors import ConfigError, EchoxError, InputError, ModelError
from echox.eval import judges
from echox.eval.judges import (
    Judge,
    PipelineJudge,
    find_judge,
    load_judge,
    warn_if_own_ear,
    whisper_size,
    window_samples,
)
from echox.eval.scorers.texts import errors_between

RATE = 16_000
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
        ("{", "cannot be read as JSON"),
        ("[]", "does not hold settings"),
    ],
)
def test_a_folder_of_another_kind_of_model_is_no_judge(tmp_path, config, told):
    with pytest.raises(EchoxError, match=told):
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


def test_windows_grow_in_steps_and_stop_at_thirty():
    seconds = [window_samples(int(s * RATE), 15) // RATE for s in (0.5, 13.9, 14.1, 20, 29.5, 40)]
    assert seconds == [15, 15, 20, 25, 30, 30]
    assert window_samples(RATE, 30) == 30 * RATE


def test_long_audio_is_heard_in_pieces_cut_at_a_pause_and_put_together_in_order():
    rng, said, batches = np.random.default_rng(0), np.zeros(200, np.float32), []
    long = np.concatenate([rng.standard_normal(27 * RATE), said, rng.standard_normal(20 * RATE)]).astype(np.float32) / 9
    long[27 * RATE - 2000 : 27 * RATE + 2000] = 0  # the pause
    short = (rng.standard_normal(RATE) / 9).astype(np.float32)

    class Seconds(Judge):
        def _decode(self, waves):
            batches.append([len(wave) for wave in waves])
            return [f" {len(wave) / RATE:.0f} " for wave in waves]

    texts = Seconds().transcribe([long, np.zeros(RATE), short, np.zeros(0), long[: 30 * RATE]])
    assert texts == ["27 20", "", "1", "", "30"]
    assert batches == [sorted(batches[0])] and max(batches[0]) <= 30 * RATE  # like lengths together, silence left out


def test_a_ctc_folder_is_heard_through_its_pipeline(tmp_path):
    from transformers import (
        Wav2Vec2Config,
        Wav2Vec2CTCTokenizer,
        Wav2Vec2FeatureExtractor,
        Wav2Vec2ForCTC,
        Wav2Vec2Processor,
    )

    letters = ["<pad>", "<s>", "</s>", "<unk>", "|", *"ABC"]
    (tmp_path / "vocab.json").write_text(json.dumps({letter: place for place, letter in enumerate(letters)}))
    tokenizer = Wav2Vec2CTCTokenizer(str(tmp_path / "vocab.json"))
    Wav2Vec2Processor(Wav2Vec2FeatureExtractor(sampling_rate=RATE), tokenizer).save_pretrained(tmp_path / "ctc")
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    sizes |= {"conv_dim": (8, 8), "conv_stride": (20, 16), "conv_kernel": (20, 16), "num_conv_pos_embeddings": 4}
    sizes |= {"num_conv_pos_embedding_groups": 2, "vocab_size": len(letters), "num_feat_extract_layers": 2}
    model = Wav2Vec2ForCTC(Wav2Vec2Config(**sizes))
    model.lm_head.weight.data.zero_()
    model.lm_head.bias.data[letters.index("A")] = 9.0  # it hears nothing but A
    model.save_pretrained(tmp_path / "ctc")
    judge = load_judge(str(tmp_path / "ctc"))
    judge._pipeline, whole = lambda inputs, **options: [{"text": "<|notimestamps|> A"} for _ in inputs], judge._pipeline
    assert judge.transcribe([np.sin(np.arange(RATE, dtype=np.float32))]) == ["A"]  # a mark of Whisper's is no word
    judge._pipeline = whole
    assert judge.transcribe([np.zeros(RATE), np.sin(np.arange(RATE, dtype=np.float32))]) == ["", "A"]
    assert judge.name.startswith("ctc (transformers float32, greedy, sha256 ")
    assert load_judge(str(tmp_path / "ctc"), language="es").name.startswith(
        "ctc (transformers float32, greedy, es, sha256 "
    )
    with pytest.raises(ConfigError, match="greedily"):
        load_judge(str(tmp_path / "ctc"), beam=2)


def test_folders_that_are_no_judge_are_refused(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="is not a judge"):
        find_judge(str(tmp_path))
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is a file"):
        find_judge(str(tmp_path / "file"))
    with pytest.raises(InputError, match="missing"):
        find_judge(str(tmp_path / "a" / "b"))
    inner = tmp_path / "weights" / "whisper-x" / "ct2"
    inner.mkdir(parents=True)
    (inner / "model.bin").write_bytes(b"x")
    (inner / "tokenizer.json").write_text("{}")
    monkeypatch.setenv("ECHOX_WEIGHTS", str(tmp_path / "weights"))
    assert find_judge("whisper-x") == inner
    with pytest.raises(ConfigError, match="1 to 30"):
        load_judge("whisper-x", window=31)


@pytest.mark.parametrize(("device", "where"), [("auto", "cpu"), ("mps", "cpu"), ("cuda", "cuda")])
def test_judges_hear_on_the_cpu_wherever_the_model_is_unless_that_is_cuda(tmp_path, monkeypatch, device, where):
    monkeypatch.setattr("echox.models.device.pick_device", lambda name: None)
    for kind, names in (("CTranslate2Judge", ["model.bin"]), ("PipelineJudge", ["config.json", "model.safetensors"])):
        monkeypatch.setattr(judges, kind, lambda folder, device, *given: device)
        place = tmp_path / kind
        place.mkdir()
        for name in (*names, "tokenizer.json"):
            (place / name).write_text('{"architectures": ["Wav2Vec2ForCTC"]}')
        assert load_judge(str(place), device) == where


def test_a_device_that_is_not_there_is_told_as_such():
    with pytest.raises(ConfigError, match="unknown device 'gpu'"):
        load_judge("whisper-x", "gpu")


def test_a_judge_that_cannot_be_downloaded_is_told(monkeypatch):
    import huggingface_hub

    def no_network(*arguments, **options):
        raise OSError("no network")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", no_network)
    monkeypatch.delenv("ECHOX_WEIGHTS", raising=False)
    with pytest.raises(
        ModelError, match="Systran/faster-whisper-base is .* the hub did not give it .no network.: give a local folder"
    ):
        find_judge("whisper-base")


@pytest.mark.pretrained
def test_both_kinds_of_whisper_folder_hear_what_a_voice_says():
    hibari = pytest.importorskip("hibari")
    voice = hibari.Hibari(threads=1)
    import soxr

    wave = soxr.resample(np.asarray(voice(SAID, speed=1.0, seed=0), np.float32), voice.sample_rate, 16_000)
    folder = Path(os.environ["ECHOX_WEIGHTS"]) / "whisper-tiny.en"
    fast, slow = load_judge("whisper-tiny.en"), PipelineJudge(folder, "cpu", "en")
    assert "15 s window, sha256" in fast.name and "whisper-tiny.en (ctranslate2" in fast.name
    heard = fast.transcribe([wave, np.zeros(16_000, np.float32), np.zeros(0, np.float32)])
    assert heard[1:] == ["", ""]
    assert "<|" not in slow.transcribe([wave])[0]
    assert [errors_between(SAID, one)["word_edits"] for one in (heard[0], *slow.transcribe([wave]))] == [0, 0]
