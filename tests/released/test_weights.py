"""Loading: strict, lazy, and one sentence for every broken folder."""

import json
import re
import shutil
import struct
from dataclasses import replace

import huggingface_hub
import pytest
import torch
from safetensors.torch import save_file

from benchmarks.memory import ECHOX_3B, ECHOX_8B, SIZES, count_memory, memory_table
from echox.assistant import SpeechAssistant
from echox.errors import ConfigError, ModelError, OutputError
from echox.models import llm
from echox.models.llm import CPU, Place
from echox.models.packed import PackedLinear, most_rows
from echox.models.weights import WeightFiles, write_shards
from echox.released.config import ReleasedConfig
from echox.released.keymap import expected_shapes, may_be_extra, ours, theirs
from echox.released.locate import find_encoder
from echox.released.open import as_released, open_parts
from tests.released import tiny
from tests.released.test_fairseq import write_vocoder


@pytest.mark.parametrize(
    ("raw", "count", "parameters"), [(ECHOX_8B, 396, 9_607_500_000), (ECHOX_3B, 341, 4_293_000_000)], ids=["8B", "3B"]
)
def test_the_released_sizes(raw, count, parameters):
    config = ReleasedConfig.from_dict(raw)
    shapes = expected_shapes(config)
    total = sum(torch.Size(shape).numel() for shape in shapes.values())
    assert len(shapes) == count and abs(total - parameters) < 1_000_000  # spec section 10: counted from the files
    assert ("lm_head.weight" in shapes) is (not config.tied)
    assert all(theirs(*ours(name)) == name for name in shapes)
    V, U, H = config.llm.vocab_size, config.units, config.llm.hidden_size  # spec section 10.2, a sample of it
    assert shapes["model.audio_feature_head.weight"] == shapes["unit_translator.model.embed_tokens.weight"] == (V, H)
    assert shapes["model.lbm.encoder_attn.in_proj_weight"] == (3 * H, H)
    assert shapes["unit_translator.lm_head.weight"] == (V + U, 768 if parameters > 9e9 else 512)
    assert shapes["unit_translator.aligner_MLP.3.weight"] == (H, config.llm.intermediate_size)


def test_memory_is_counted_from_the_shapes(checkpoint):
    config = ReleasedConfig.from_dict(ECHOX_3B)
    assert ReleasedConfig.from_dict(ECHOX_3B | {"segment_prefix_id": None}) == replace(
        config, raw=ECHOX_3B | {"segment_prefix_id": None}
    )
    assert (
        round(count_memory(config, "float16").weights / 1e9, 2) == 8.59
    )  # spec section 10: shards of 4.966 and 3.621 GB
    assert round(count_memory(ReleasedConfig.from_dict(ECHOX_8B), "float16").weights / 1e9, 1) == 19.2
    stored = [count_memory(config, kind).weights for kind in ("float32", "bfloat16", "int8", "int4", "nf4")]
    assert stored == sorted(stored, reverse=True) and stored[0] == 2 * stored[1]
    assert memory_table().count("\n") == 1 + 5 * len(SIZES)
    tiny_config = ReleasedConfig.load(checkpoint)
    own = sum(torch.Size(shape).numel() for shape in WeightFiles(checkpoint).shapes.values())
    assert count_memory(tiny_config, "float32").weights == 4 * own


def load_parts(folder, place=CPU):
    if not list(folder.glob("g_*")):
        write_vocoder(folder, num_embeddings=1000)
    return open_parts(folder, place)


def tensors(parts) -> dict[str, torch.Tensor]:
    """Every tensor of loaded parts under its released name."""
    modules = {"llm": parts.s2t.llm, "s2t": parts.s2t}
    if parts.voice:
        modules |= {"t2c": parts.t2c, "echo": parts.echo}
    found = {}
    for part, module in modules.items():
        own = {
            n: v for n, v in module.state_dict().items() if not n.startswith(("llm.", "t2c.", "ctc_", "adapter.scale"))
        }
        found |= {theirs(part, name): value for name, value in own.items()}
    return found


def test_the_t2c_is_never_tied(tmp_path):
    folder = tmp_path / "m"
    state = tiny.write_checkpoint(folder, tiny.settings(tied=True))
    parts = load_parts(folder)
    assert torch.equal(parts.t2c.head.weight, state["unit_translator.lm_head.weight"])
    assert torch.equal(parts.s2t.llm.lm_head.weight, state["model.embed_tokens.weight"])
    assert parts.t2c.text_embedding.weight.shape != parts.t2c.head.weight.shape


def test_a_tied_checkpoint_may_repeat_its_embedding_as_head(tmp_path):
    state = tiny.write_checkpoint(tmp_path, tiny.settings(tied=True))
    tiny.save_sharded(tmp_path, state | {"lm_head.weight": state["model.embed_tokens.weight"].clone()})
    assert load_parts(tmp_path).s2t.llm.lm_head.weight.equal(state["model.embed_tokens.weight"])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_round_trip(tmp_path, dtype):
    folder = tmp_path / "m"
    state = tiny.write_checkpoint(folder, dtype=dtype)
    own = tensors(load_parts(folder, Place(dtype=dtype)))
    assert own.keys() == state.keys()
    assert all(torch.equal(own[name], tensor) for name, tensor in state.items())


def test_of_one_file_and_shards_the_file_is_read(tmp_path):
    """By every reader: transformers, which reads the LLM, takes it first."""
    state = {name: value * 2 for name, value in tiny.write_checkpoint(tmp_path).items()}
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    own = tensors(load_parts(tmp_path))
    assert own.keys() == state.keys() and all(torch.equal(own[name], value) for name, value in state.items())


@pytest.mark.parametrize("name", ["model.layers.0.mlp.up_proj.weight", "unit_translator.adapter.bias"])
def test_a_weight_that_is_no_number_is_refused(tmp_path, name):
    state = tiny.write_checkpoint(tmp_path)
    state[name].view(-1)[3] = torch.inf
    tiny.save_sharded(tmp_path, state)
    with pytest.raises(ModelError, match=f"{name} holds NaN or infinity"):
        load_parts(tmp_path)


def test_soundwave_has_no_voice(tmp_path, checkpoint):
    folder = tmp_path / "Soundwave"
    state = tiny.write_checkpoint(folder, tiny.settings("Soundwave"))
    assert not any(name.startswith("unit_translator") for name in state)
    parts = open_parts(folder, CPU)
    assert parts.voice is None
    with pytest.raises(ModelError, match="does not speak"):
        parts.t2c  # noqa: B018
    assert as_released(parts).stop == {
        as_released(parts).dialect.tokens.eot
    }  # its limits are known without a voice too
    may = [may_be_extra("model.audio_tower.conv1.weight", ReleasedConfig.load(one)) for one in (folder, checkpoint)]
    assert may == [True, False]


def test_of_a_published_encoder_only_what_is_read_is_fetched(tmp_path, monkeypatch):
    published = """config.json flax_model.msgpack model.fp32-00001-of-00002.safetensors model.fp32-00002-of-00002.safetensors
        model.safetensors model.safetensors.index.fp32.json preprocessor_config.json pytorch_model.bin tokenizer.json""".split()
    sharded = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "model.safetensors.index.json"]
    asked = []
    monkeypatch.setattr(
        huggingface_hub, "snapshot_download", lambda name, **given: asked.append((name, given)) or tmp_path
    )
    assert find_encoder(tmp_path, ReleasedConfig.from_dict(ECHOX_3B)) == tmp_path
    [(name, given)] = asked
    fetched = huggingface_hub.utils.filter_repo_objects(published + sharded, allow_patterns=given["allow_patterns"])
    assert name == "openai/whisper-large-v3" and set(fetched) == {"config.json", "model.safetensors", *sharded}


def test_rotary_tables_of_old_files_are_passed_over(tmp_path, parts):
    state = tiny.write_checkpoint(tmp_path, shards=1)
    heads = ("model.", "model.layers.0.self_attn.", "model.layers.1.self_attn.", "unit_translator.model.")
    state |= {f"{head}rotary_emb.inv_freq": torch.ones(8) for head in heads}
    (tmp_path / "model.safetensors.index.json").unlink()
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    ids = torch.arange(9)[None]
    expected = parts.s2t.body(input_ids=ids).last_hidden_state
    assert torch.equal(load_parts(tmp_path).s2t.body(input_ids=ids).last_hidden_state, expected)


@pytest.mark.parametrize("dtype", [torch.int32, torch.float8_e4m3fn])
def test_numbers_of_another_kind_are_refused(tmp_path, dtype):
    tiny.write_checkpoint(tmp_path, dtype=dtype)
    with pytest.raises(ModelError, match="in numbers of kind .*; expected F16, BF16, F32 or F64"):
        load_parts(tmp_path)


def broken(folder, kind):
    shard = folder / "model-00002-of-00003.safetensors"
    index = folder / "model.safetensors.index.json"
    if kind == "half":
        data = shard.read_bytes()
        shard.write_bytes(data[: len(data) // 2])
        return rf"has {len(data) // 2} bytes; expected {len(data)}"
    if kind == "header":
        shard.write_bytes(shard.read_bytes()[:100])
        return "has 100 bytes; expected at least"
    if kind == "absent":
        shard.unlink()
        return r"names 3 files and 2 are there; model-00002-of-00003.safetensors is missing"
    if kind == "pointer":
        shard.write_text("version https://git-lfs.github.com/spec/v1\n")
        return "Git LFS pointer"
    if kind == "garbage":
        shard.write_bytes(struct.pack("<Q", 20) + b"x" * 20)
        return "not a safetensors file"
    if kind == "index":
        index.write_text("{")
        return "not an index of shards"
    if kind == "number":
        index.write_text(json.dumps({"weight_map": {"a": 3}}))
        return "not an index of shards"
    if kind == "escape":
        index.write_text(json.dumps({"weight_map": {"a": "../x.safetensors"}}))
        return "outside its folder"
    if kind == "none":
        index.unlink()
        return "holds neither"
    record = json.loads(index.read_text())
    name = next(iter(record["weight_map"]))
    record["weight_map"][name] = "model-00002-of-00003.safetensors"
    index.write_text(json.dumps(record))
    return re.escape(f"lacks {name}")


@pytest.mark.parametrize(
    "kind", ["half", "header", "absent", "pointer", "garbage", "index", "number", "escape", "none", "moved"]
)
def test_broken_folders_are_named(tmp_path, kind):
    folder = tmp_path / "m"
    tiny.write_checkpoint(folder)
    expected = broken(folder, kind)
    with pytest.raises(ModelError, match=expected) as caught:
        load_parts(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"adapter_size": 30},
            r"mm_projector1.weight of shape \(64, 48\); expected \(64, 60\) \(two frames of an encoder 30",
        ),
        ({"unit_vocab_size": 21}, r"expected \(21, 64\) \(unit_model large, unit_vocab_size 21\)"),
        ({"unit_model": "medium"}, "lacks unit_translator.model.layers.2"),
        ({"num_hidden_layers": 1}, "does not know: model.layers.1"),
        (
            {"tie_word_embeddings": True},
            "holds a lm_head.weight other than model.embed_tokens.weight, and .* ties them",
        ),
        ({"unit_output": "pretrain"}, "does not know: unit_translator.aligner_MLP"),
        ({"unit_vocab_size": 0}, "unit_vocab_size 0; expected a positive"),
        ({"hidden_size": None}, "hidden_size = None; expected a positive"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers 1000000000, which cannot be"),
        ({"unit_model": ["large"]}, "unit_model"),
        ({"num_attention_heads": 3}, r"^\S*config.json: 3 heads \(2 of keys\) do not divide the width 64\.$"),
        ({"num_key_value_heads": 3}, r"^\S*config.json: 4 heads \(3 of keys\) do not divide the width 64\.$"),
        ({"rope_theta": "x"}, "does not describe a LLaMA"),
        ({"rope_scaling": 3}, "does not describe a LLaMA"),
        ({"rope_theta": 10**400}, "does not describe a LLaMA"),
        ({"rope_scaling": {"rope_type": "foo"}}, "config.json, rope_parameters, has rope_type foo, which cannot be"),
        ({"rope_scaling": {"rope_type": 3}}, "has rope_type 3, which cannot be"),
        ({"rope_scaling": {"rope_type": "linear", "factor": "2"}}, "has factor 2, which cannot be"),
        ({"rope_parameters": {"rope_theta": 10**400}}, "rope_parameters, has rope_theta 10+, which cannot be"),
        ({"hidden_act": "gelu"}, "hidden_act = 'gelu'; expected 'silu'"),
        ({"attention_bias": True}, "attention_bias = True; expected False"),
        ({"model_type": "llama"}, "model_type 'llama'; expected one of EchoX, Soundwave"),
    ],
)
def test_settings_that_disagree_with_tensors(tmp_path, changes, message):
    folder = tmp_path / "m"
    tiny.write_checkpoint(folder)
    (folder / "config.json").write_text(json.dumps({**tiny.settings(), **changes}))
    with pytest.raises(ModelError, match=message):
        load_parts(folder)


def test_unknown_places_of_layers(checkpoint):
    with pytest.raises(
        ConfigError, match=r"^device_map 'everywhere' is unknown: choose auto, .*, or a device such as cuda:0\.$"
    ):
        load_parts(checkpoint, Place(device_map="everywhere"))


def test_a_folder_of_the_llm_alone(tmp_path):
    tiny.write_checkpoint(tmp_path / "m")
    (tmp_path / "m" / "config.json").write_text(json.dumps({**tiny.settings(), "model_type": "llama"}))
    with pytest.raises(ModelError, match=r"config.json describes a 'llama': give a whole model, one that hears\.$"):
        SpeechAssistant.load(tmp_path / "m", device="cpu")


def test_unknown_quantization(checkpoint):
    with pytest.raises(ConfigError, match="int2.* is unknown on cpu: choose int8 or int4 or nf4"):
        load_parts(checkpoint, Place(quantize="int2"))
    with pytest.raises(ConfigError, match="int4.* on cuda: choose int8 or nf4"):
        Place(torch.device("cuda"), torch.float16, quantize="int4").options()


def test_a_place_is_what_transformers_is_told():
    assert Place(device_map={"model": "cpu"}).options() == {"dtype": torch.float32, "device_map": {"model": "cpu"}}
    assert Place(dtype=torch.float16).options() == {"dtype": torch.float16}


def test_a_device_map_gives_the_same_states(checkpoint, parts):
    ids = torch.arange(9)[None]
    expected = parts.s2t.body(input_ids=ids).last_hidden_state
    for places in ("auto", {"model": "cpu", "lm_head": "cpu"}):
        mapped = load_parts(checkpoint, Place(device_map=places))
        assert torch.equal(mapped.s2t.body(input_ids=ids).last_hidden_state, expected)


needs_kernels = pytest.mark.skipif(not most_rows(), reason="this processor or torch has no kernels for packed weights")


@needs_kernels
@pytest.mark.parametrize(("quantize", "near"), [("int8", 0.997), ("int4", 0.85)])
def test_states_in_8_and_4_bits_stay_near(tmp_path, quantize, near):
    folder = tmp_path / "m"
    tiny.write_checkpoint(folder, tiny.settings(intermediate_size=128))
    ids = torch.arange(9)[None]
    plain = load_parts(folder).s2t.body(input_ids=ids).last_hidden_state
    small = load_parts(folder, Place(quantize=quantize))
    layers = [module for module in small.s2t.body.modules() if hasattr(module, "in_features")]
    assert {type(layer) for layer in layers} == {PackedLinear}
    assert not any(list(layer.parameters()) for layer in layers)  # the weights themselves are gone
    assert small.s2t.adapter.head.weight.dtype == torch.float32  # only the LLM's layers are quantized
    assert small.s2t.llm.lm_head.weight.dtype == torch.float32
    cosine = torch.cosine_similarity(small.s2t.body(input_ids=ids).last_hidden_state, plain, dim=-1)
    assert near < float(cosine.min()) < 1


def test_a_processor_without_kernels_is_told(monkeypatch):
    monkeypatch.setattr(llm, "most_rows", lambda: 0)
    with pytest.raises(ConfigError, match="'int4' needs AVX2 or AVX-512 and no device_map on cpu"):
        Place(quantize="int4").options()
    assert Place(quantize="int8").spread  # it is left to bitsandbytes


def test_4_bit_weights_stay_near(tmp_path):
    functional = pytest.importorskip("bitsandbytes.functional")
    folder = tmp_path / "m"
    state = tiny.write_checkpoint(folder, tiny.settings(intermediate_size=128))
    for name, module in load_parts(folder, Place(quantize="nf4")).s2t.body.layers[1].named_modules():
        if name.endswith("_proj"):
            assert module.weight.dtype == torch.uint8
            near = functional.dequantize_4bit(module.weight, module.weight.quant_state)
            cosine = torch.cosine_similarity(near, state[f"model.layers.1.{name}.weight"], dim=1)
            assert float(cosine.min()) > 0.98


def test_shards_are_written_whole(tmp_path):
    tensors = {f"t{i}": torch.full((10,), float(i)) for i in range(5)}
    write_shards(tmp_path, {"old": torch.ones(1)}.items())
    with pytest.raises(OutputError, match="would be read first"):
        write_shards(tmp_path, tensors.items(), shard_bytes=85)
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]
    (tmp_path / "model.safetensors").unlink()
    write_shards(tmp_path, tensors.items(), shard_bytes=85)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "model-00001-of-00003.safetensors", "model-00002-of-00003.safetensors", "model-00003-of-00003.safetensors",
        "model.safetensors.index.json",
    ]  # fmt: skip
    files = WeightFiles(tmp_path)
    assert len(files.headers) == 5 and all(torch.equal(t, tensors[n]) for n, t in files.read(files.shapes))


def test_a_tokenizer_of_the_bare_llm_cannot_speak(tmp_path, checkpoint):
    """Without unit tokens it would answer in silence."""
    folder = tmp_path / "m"
    shutil.copytree(checkpoint, folder)
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["added_tokens"] = [one for one in tokenizer["added_tokens"] if "unit_" not in one["content"]]
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(ModelError, match=r"tokenizer.json has no <\|unit_...\|> with an id from \d+ to \d+: copy"):
        open_parts(folder, CPU, encoder=checkpoint.parent / "whisper-tiny-random")


def test_pickled_weights_are_named(tmp_path):
    folder = tmp_path / "m"
    torch.save(tiny.write_checkpoint(folder), folder / "pytorch_model.bin")
    for path in folder.glob("model*"):
        path.unlink()
    with pytest.raises(
        ModelError, match=r"; pytorch_model.bin is a pickle, which is not read: save [^\n]* safetensors\.$"
    ):
        load_parts(folder)
