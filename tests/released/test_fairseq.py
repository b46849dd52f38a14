"""fairseq's vocoder and HuBERT files against their slow twins."""

import argparse
import json

import numpy as np
import pytest
import torch
from transformers import AutoFeatureExtractor, HubertConfig, HubertModel

from echox.errors import InputError, ModelError
from echox.generate.parts import load_vocoder
from echox.released.fairseq_hubert import convert_hubert, hubert_config, rename
from echox.released.fairseq_vocoder import convert_vocoder, load_fairseq_vocoder
from echox.released.locate import find_vocoder, newest_generator
from tests.released.reference import ReferenceCodeHifigan

VOCODER = {
    "resblock": "1", "upsample_rates": [5, 4, 4, 2, 2], "upsample_kernel_sizes": [11, 8, 8, 4, 4],
    "upsample_initial_channel": 64, "resblock_kernel_sizes": [3, 7, 11],
    "resblock_dilation_sizes": [[1, 3, 5], [1, 3, 5], [1, 3, 5]], "num_embeddings": 50, "embedding_dim": 12,
    "model_in_dim": 12, "code_hop_size": 320, "f0": False, "sampling_rate": 16000,
    "dur_predictor_params": {
        "encoder_embed_dim": 12, "var_pred_hidden_dim": 12, "var_pred_kernel_size": 3, "var_pred_dropout": 0.5
    },
}  # fmt: skip
UNITS = [5, 5, 49, 0, 17, 3]


def write_vocoder(folder, **changes):
    folder.mkdir(parents=True, exist_ok=True)
    cfg = {**VOCODER, **changes}
    torch.manual_seed(0)
    twin = ReferenceCodeHifigan(cfg).eval()
    for name, parameter in twin.named_parameters():
        if name.endswith(("weight_v", "weight_g")):
            torch.nn.init.normal_(parameter, 1.2 if name.endswith("g") else 0.0, 0.3)
    if cfg.get("multispkr"):
        torch.nn.init.normal_(twin.spkr.weight, std=4.0)
    torch.nn.init.constant_(twin.dur_predictor.proj.bias, 1.1)
    torch.save({"generator": twin.state_dict(), "mpd": {}}, folder / "g_00500000")
    (folder / "vocoder_config.json").write_text(json.dumps(cfg))
    return twin


def test_vocoder_equals_fairseq_generator(tmp_path):
    twin = write_vocoder(tmp_path)
    path, config = tmp_path / "g_00500000", tmp_path / "vocoder_config.json"
    ours = load_fairseq_vocoder(path, config)
    durations = twin.durations(UNITS)
    assert ours.predict_durations(torch.tensor([UNITS]))[0].tolist() == durations.tolist() and durations.max() > 1
    expected = twin(UNITS)
    assert expected.std() > 1e-3
    np.testing.assert_allclose(ours.speak(UNITS), expected, atol=1e-5)
    convert_vocoder(path, config, tmp_path / "vocoder")
    np.testing.assert_array_equal(load_vocoder(tmp_path / "vocoder").eval().speak(UNITS), ours.speak(UNITS))


def test_of_several_vocoders_that_of_most_steps_speaks(tmp_path):
    write_vocoder(tmp_path)
    (tmp_path / "g_00500000").rename(tmp_path / "g_1000000")
    for name in ("g_00090000", "g_best"):
        (tmp_path / name).write_bytes(b"an older one")
    assert newest_generator(tmp_path) == tmp_path / "g_1000000" and newest_generator(tmp_path / "none") is None
    assert find_vocoder(tmp_path, tmp_path).config.num_units == 50


def test_each_speaker_of_a_many_speaker_vocoder(tmp_path):
    twin = write_vocoder(tmp_path, multispkr=True, num_speakers=3, model_in_dim=24)
    path, config = tmp_path / "g_00500000", tmp_path / "vocoder_config.json"
    waves = [load_fairseq_vocoder(path, config, speaker).speak(UNITS) for speaker in range(3)]
    for speaker, wave in enumerate(waves):
        np.testing.assert_allclose(wave, twin(UNITS, speaker), atol=1e-5)
    assert np.abs(waves[0] - waves[1]).max() > 1e-3
    with pytest.raises(InputError, match="3 speakers, 0 to 2; found None"):
        load_fairseq_vocoder(path, config)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"num_embeddings": 60}, ModelError, r"dict.weight of shape \(50, 12\); expected \(60, 12\)"),
        ({"upsample_initial_channel": 32}, ModelError, r"conv_pre.bias of shape \(64,\); expected \(32,\)"),
        ({"resblock_kernel_sizes": [3, 7, 9]}, ModelError, r"resblocks.2.convs1.0.weight_v .*expected \(32, 32, 9\)"),
        ({"code_hop_size": 256}, ModelError, "code_hop_size 256; its upsample_rates multiply to 320"),
        ({"f0": True}, ModelError, "pitch input"),
        ({"multispkr": True}, ModelError, "no spkr.weight"),
        ({"resblock": "2"}, ModelError, "resblock '2'"),
        ({"dur_predictor_params": None}, ModelError, "no dur_predictor_params"),
        ({"upsample_rates": None}, ModelError, "is not a CodeHiFiGAN configuration"),
        ({"upsample_kernel_sizes": None}, ModelError, "vocoder_config.json has upsample_kernels"),
        ({"upsample_initial_channel": None}, ModelError, "vocoder_config.json has upsample_channels None"),
        ({"resblock_kernel_sizes": [3]}, ModelError, "vocoder_config.json: resblock_dilations must have one row"),
    ],
)
def test_a_config_that_disagrees(tmp_path, changes, error, message):
    write_vocoder(tmp_path)
    (tmp_path / "vocoder_config.json").write_text(json.dumps({**VOCODER, **changes}))
    with pytest.raises(error, match=message):
        load_fairseq_vocoder(tmp_path / "g_00500000", tmp_path / "vocoder_config.json")


def test_numbers_that_are_none(tmp_path):
    write_vocoder(tmp_path)
    state = torch.load(tmp_path / "g_00500000", weights_only=True)
    state["generator"]["ups.1.bias"][3] = torch.nan
    torch.save(state, tmp_path / "g_00500000")
    with pytest.raises(ModelError, match="ups.1.bias holds NaN or infinity"):
        load_fairseq_vocoder(tmp_path / "g_00500000", tmp_path / "vocoder_config.json")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda g: g.pop("conv_post.bias"),
            r"it lacks generator.conv_post.bias, in our names: is it another vocoder\?$",
        ),
        (lambda g: g.update(foo=torch.zeros(2)), r"holds foo, which the vocoder in \S* does not have: is it"),
        (
            lambda g: g.update({"conv_pre.bias": torch.zeros(3)}),
            r"has conv_pre.bias of shape \(3,\); expected \(\d+,\) from",
        ),
        (
            lambda g: g.update({n[:-2]: g.pop(n) for n in list(g) if n.endswith(("_v", "_g"))}),
            r"g_00500000 holds \d+ of \d+",
        ),
    ],
)
def test_tensors_that_disagree_are_named_in_one_sentence(tmp_path, change, message):
    write_vocoder(tmp_path)
    path = tmp_path / "g_00500000"
    content = torch.load(path, weights_only=True)
    change(content["generator"])
    torch.save(content, path)
    with pytest.raises(ModelError, match=message) as caught:
        load_fairseq_vocoder(path, tmp_path / "vocoder_config.json")
    assert len(str(caught.value)) < 400


def test_settings_nested_too_deeply_are_no_settings(tmp_path):
    write_vocoder(tmp_path)
    (tmp_path / "vocoder_config.json").write_text("[" * 100_000)
    with pytest.raises(InputError, match="cannot be read as JSON"):
        load_fairseq_vocoder(tmp_path / "g_00500000", tmp_path / "vocoder_config.json")


def test_units_outside_the_codebook(tmp_path):
    write_vocoder(tmp_path)
    vocoder = load_fairseq_vocoder(tmp_path / "g_00500000", tmp_path / "vocoder_config.json")
    with pytest.raises(InputError, match=r"50.*0 to 49"):
        vocoder.speak([1, 50])
    torch.save({"model": {}}, tmp_path / "g_1")
    with pytest.raises(InputError, match="expected tensors under 'generator', found model"):
        load_fairseq_vocoder(tmp_path / "g_1", tmp_path / "vocoder_config.json")


def fairseq_hubert(config: HubertConfig) -> tuple[HubertModel, dict]:
    """A random HubertModel and the same weights under fairseq's names, written independently of the converter's
    rules.
    """
    torch.manual_seed(0)
    model = HubertModel(config).eval()
    own, theirs = model.state_dict(), {}
    for name, tensor in own.items():
        if name == "masked_spec_embed":
            new = "mask_emb"
        elif name.startswith("feature_extractor"):
            _, _, index, what, leaf = name.split(".")
            inner = "2.1" if config.feat_extract_norm == "layer" else "2"
            new = f"feature_extractor.conv_layers.{index}.{'0' if what == 'conv' else inner}.{leaf}"
        elif name.startswith("feature_projection"):
            new = name.replace("feature_projection.layer_norm", "layer_norm").replace(
                "feature_projection.projection", "post_extract_proj"
            )
        elif "pos_conv_embed" in name:
            leaf = {"bias": "bias", "original0": "weight_g", "original1": "weight_v"}[name.rpartition(".")[2]]
            new = f"encoder.pos_conv.0.{leaf}"
        elif name.startswith("encoder.layer_norm"):
            new = name
        else:
            head, _, leaf = name.partition(".layers.")
            index, _, rest = leaf.partition(".")
            rest = {
                "attention": f"self_attn.{rest.removeprefix('attention.')}",
                "layer_norm": f"self_attn_layer_norm.{rest.removeprefix('layer_norm.')}",
                "feed_forward": rest.replace("feed_forward.intermediate_dense", "fc1").replace(
                    "feed_forward.output_dense", "fc2"
                ),
                "final_layer_norm": rest,
            }[rest.partition(".")[0]]
            new = f"{head}.layers.{index}.{rest}"
        theirs[new] = tensor
    theirs["final_proj.weight"], theirs["label_embs_concat"] = torch.zeros(2, 2), torch.zeros(3, 2)
    return model, theirs


SIZES = {
    "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 1, "intermediate_size": 32, "conv_dim": (8,) * 7,
    "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4,
}  # fmt: skip


@pytest.mark.parametrize("large", [False, True])
def test_hubert_equals_transformers(tmp_path, large):
    layout = {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True} if large else {}
    model, theirs = fairseq_hubert(HubertConfig(**SIZES, **layout))
    cfg = {"model": {"layer_norm_first": large}, "task": argparse.Namespace(normalize=large)}
    path = tmp_path / "hubert_base_ls960.pt"
    torch.save({"args": None, "cfg": cfg, "model": theirs}, path)
    convert_hubert(path, tmp_path / "hubert")
    loaded, report = HubertModel.from_pretrained(tmp_path / "hubert", output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    wave = torch.randn(1, 4000, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        a = model(wave, output_hidden_states=True).hidden_states
        b = loaded.eval()(wave, output_hidden_states=True).hidden_states
    assert len(a) == len(b) == 3
    for x, y in zip(a, b, strict=True):
        torch.testing.assert_close(y, x, rtol=1e-5, atol=1e-6)
    assert AutoFeatureExtractor.from_pretrained(tmp_path / "hubert").do_normalize is large


def test_files_that_are_not_hubert(tmp_path):
    path = tmp_path / "x.pt"
    torch.save({"model": {"decoder.weight": torch.zeros(1)}}, path)
    with pytest.raises(InputError, match="not a fairseq HuBERT"):
        convert_hubert(path, tmp_path / "h")
    with pytest.raises(ModelError, match="w2v is not|w2x.weight is not one of HuBERT"):
        rename("w2x.weight")
    _, theirs = fairseq_hubert(HubertConfig(**SIZES))
    theirs["encoder.layers.1.fc1.weight"] = torch.zeros(5, 64)
    torch.save({"model": theirs}, path)
    with pytest.raises(ModelError, match=r"layers.1.*of shape \(5, 64\); expected \(32, 64\)"):
        convert_hubert(path, tmp_path / "h")
    _, whole = fairseq_hubert(HubertConfig(**SIZES))
    for changes, settings in (
        ({"encoder.pos_conv.0.weight_v": None}, {}),
        ({"post_extract_proj.weight": torch.zeros(3)}, {}),
        ({}, {"encoder_attention_heads": "x"}),
        ({}, {"encoder_attention_heads": -3}),
        ({}, {"encoder_attention_heads": float("inf")}),
        ({"encoder.pos_conv.0.weight_v": torch.zeros(64, 0, 16)}, {}),
    ):
        state = {name: value for name, value in (whole | changes).items() if value is not None}
        torch.save({"model": state, "cfg": {"model": settings}}, path)
        with pytest.raises(ModelError, match="x.pt does not describe a HuBERT"):
            convert_hubert(path, tmp_path / "h")
    assert not (tmp_path / "h").exists()
    far = whole | {"encoder.layers.99999999999.fc1.bias": torch.zeros(32)}
    assert hubert_config(far, {})["num_hidden_layers"] == 3  # as many as there are, not as a name says
