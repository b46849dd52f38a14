"""Tokens per second of the released layouts with placeholder weights, against the bytes each token must read.

    python benchmarks/released.py --size EchoX-3B --layers 2 --dtype bfloat16
    python benchmarks/released.py --size stand-in --layers 4
    python benchmarks/released.py --size EchoX-3B --layers 4 --vocabulary 16000 --load    # peak memory while loading

The LLM is cut to `--layers` layers so that a small machine can run it; the estimate for the whole scales by bytes. On
the CPU, seconds are those of this process on one thread, so that other programs on the machine do not count.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from transformers import DynamicCache

from echox.models.vocoder import UnitVocoder, VocoderConfig
from echox.released.config import ReleasedConfig
from echox.released.layout import expected_shapes
from echox.released.load import DTYPES, empty_model, load_model
from echox.released.memory import SIZES, llm_step_bytes, t2c_step_bytes
from echox.released.model import ReleasedModel
from echox.released.t2c import T2CDecoder, T2CTokens
from echox.models.weights import write_shards, write_text

TOKENS = T2CTokens((10, 11, 12, 13, 14, 15, 12_800), (16, 10, 11, 12, 13, 14, 15), 11, 16)

STAND_IN = {
    **SIZES["EchoX-3B"], "vocab_size": 16_000, "hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 4,
    "num_attention_heads": 8, "head_dim": 64, "unit_model": "small",
}  # fmt: skip
LAYOUTS = {**SIZES, "stand-in": STAND_IN}


def placeholder_model(config: ReleasedConfig, dtype: torch.dtype, device: str) -> ReleasedModel:
    """Build the model with small constants for weights; the large text tables share one block of memory."""
    model = empty_model(config)
    shared: dict[tuple[int, ...], torch.Tensor] = {}
    for name, shape in expected_shapes(config).items():
        if name.startswith("model.audio_feature_head"):
            continue
        if shape[0] == config.llm.vocab_size:
            tensor = shared.setdefault(shape, torch.full(shape, 0.01, dtype=dtype, device=device))
        else:
            tensor = torch.full(shape, 0.01, dtype=dtype, device=device)
        path, _, leaf = name.rpartition(".")
        model.get_submodule(path)._parameters[leaf] = torch.nn.Parameter(tensor, requires_grad=False)
    model.tie()
    model.reset_buffers(device)
    return model.eval()


def seconds(function, count: int, device: str) -> float:
    """Return the seconds of one of `count` calls, after one that does not count."""
    clock = time.perf_counter if device.startswith("cuda") else time.process_time
    function()
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    began = clock()
    for _ in range(count):
        function()
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return (clock() - began) / count


@torch.no_grad()
def llm_seconds(model: ReleasedModel, positions: int, count: int, device: str) -> float:
    """Return the seconds of one LLM token after `positions`."""
    cache = DynamicCache()
    weight = model.model.norm.weight
    prompt = torch.zeros(1, positions, len(weight), dtype=weight.dtype, device=device)
    model.model(inputs_embeds=prompt, past_key_values=cache, use_cache=True)

    def step() -> None:
        state = model.model(inputs_embeds=prompt[:, :1], past_key_values=cache, use_cache=True).last_hidden_state[:, -1]
        model.lm_head(state).argmax(-1)

    return seconds(step, count, device)


@torch.no_grad()
def t2c_seconds(model: ReleasedModel, released: bool, positions: int, count: int, device: str) -> float:
    """Return the seconds of one unit token, ours or with the table rebuilt and the full logits of the released code."""
    translator = model.translator()
    decoder = T2CDecoder(translator, TOKENS)
    cache = DynamicCache()
    prompt = decoder.before_Nh.new_zeros(1, positions, decoder.before_Nh.shape[1])
    translator.model(inputs_embeds=prompt, past_key_values=cache, use_cache=True)
    row = [prompt[:, :1]]

    def step() -> None:
        state = translator.model(inputs_embeds=row[0], past_key_values=cache, use_cache=True).last_hidden_state[:, -1]
        if released:
            token = translator.lm_head(state).argmax(-1)
            table = torch.cat([translator.model.embed_tokens.weight, translator.unit_embedding.weight])
            row[0] = translator.adapter(torch.nn.functional.embedding(token, table))[:, None]
        else:
            row[0] = decoder._step(state)[1][:, None]

    return seconds(step, count, device)


def report(name: str, each: float, size: float) -> None:
    print(f"| {name} | {size / 1e6:,.0f} MB | {1 / each:,.1f} | {size / each / 1e9:.1f} GB/s |")


def measure(size: str, layers: int, dtype_name: str, device: str, count: int) -> None:
    """Print the table of one size."""
    dtype, width = DTYPES[dtype_name], DTYPES[dtype_name].itemsize
    whole = ReleasedConfig.from_dict(LAYOUTS[size])
    layers = min(layers, whole.llm.num_hidden_layers)
    config = ReleasedConfig.from_dict({**LAYOUTS[size], "num_hidden_layers": layers})
    model = placeholder_model(config, dtype, device)
    print(f"{size}, {layers} of {whole.llm.num_hidden_layers} LLM layers, {dtype_name}, {device}, one thread\n")
    print("| step | bytes read per token | tokens/s | rate |\n|---|---|---|---|")
    each, size_cut = llm_seconds(model, 500, count, device), llm_step_bytes(config, width, 500)
    report(f"LLM, {layers} layers", each, size_cut)
    full = llm_step_bytes(whole, width, 500)
    report(f"LLM, all {whole.llm.num_hidden_layers} (estimate)", each * full / size_cut, full)
    if config.t2c is not None:
        for name, released in (("T2C", False), ("T2C, the released way", True)):
            each = t2c_seconds(model, released, 200, count, device)
            report(name, each, t2c_step_bytes(config, width, 200, released))
    del model
    vocoder = UnitVocoder(VocoderConfig(generator="hifigan")).eval().to(device)
    units = [unit % 1000 for unit in range(40)]
    each = seconds(lambda: vocoder.speak(units, [2] * len(units)), max(1, count // 4), device)
    parameters = sum(parameter.numel() for parameter in vocoder.parameters())
    print(f"\nvocoder: {parameters * 4 / 1e6:.0f} MB, {len(units) * 2 / 50 / each:.2f} s of speech a second (float32)")


def measure_loading(size: str, layers: int, vocabulary: int) -> None:
    """Write a checkpoint of `layers` layers in float16 and print the peak memory of loading it in a fresh process."""
    raw = {**LAYOUTS[size], "num_hidden_layers": layers, "vocab_size": vocabulary}
    shapes = expected_shapes(ReleasedConfig.from_dict(raw))
    with tempfile.TemporaryDirectory() as folder:
        tensors = ((name, torch.full(shape, 0.01, dtype=torch.float16)) for name, shape in shapes.items())
        write_shards(Path(folder), tensors, shard_bytes=500_000_000)
        write_text(Path(folder) / "config.json", json.dumps(raw))
        weights = sum(file.stat().st_size for file in Path(folder).glob("*.safetensors"))
        print("| loaded as | files | weights | peak |\n|---|---|---|---|")
        for dtype in ("float16", "float32"):
            line = subprocess.run(
                [sys.executable, __file__, "--peak", folder, "--dtype", dtype],
                capture_output=True,
                text=True,
                check=True,
            ).stdout
            before, peak, loaded = map(int, line.split())
            sizes = [f"{size / 2**20:,.0f} MiB" for size in (weights, loaded, peak - before)]
            print("| {} | {} | {} | {} |".format(dtype, *sizes))


def memory(name: str) -> int:
    """Return a figure of this process from Linux's /proc in bytes: VmRSS now, VmHWM at its highest."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:")) * 1024


def main() -> None:
    """Parse options and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=list(LAYOUTS), default="EchoX-3B")
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--dtype", choices=list(DTYPES), default="bfloat16")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--count", type=int, default=8)
    parser.add_argument("--load", action="store_true", help="measure the peak memory of loading instead")
    parser.add_argument("--vocabulary", type=int, default=128_257, help="text vocabulary of the --load checkpoint")
    parser.add_argument("--peak", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.peak:
        before = memory("VmRSS")
        model = load_model(options.peak, dtype=DTYPES[options.dtype])
        print(before, memory("VmHWM"), sum(p.numel() * p.element_size() for p in model.parameters()))
    elif options.load:
        measure_loading(options.size, options.layers, options.vocabulary)
    else:
        measure(options.size, options.layers, options.dtype, options.device, options.count)


if __name__ == "__main__":
    main()
