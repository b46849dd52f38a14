"""Tokens per second of the released layouts with placeholder weights, against the bytes each token must read.

    python benchmarks/released.py --size EchoX-3B --layers 2 --dtype bfloat16
    python benchmarks/released.py --size EchoX-3B --layers 28 --quantize int4 --threads 2
    python benchmarks/released.py --size stand-in --layers 4
    python benchmarks/released.py --size EchoX-3B --layers 4 --vocabulary 16000 --load    # peak memory while loading

The LLM is cut to `--layers` layers so that a small machine can run it; the estimate for the whole scales by bytes. On
the CPU, seconds are those of this process on one thread, so that other programs on the machine do not count; on more threads
they are those of the clock.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from memory import SIZES, llm_step_bytes, t2c_step_bytes
from transformers import LlamaForCausalLM

from echox.files import write_text
from echox.models.device import DTYPES
from echox.models.echo import EchoDecoder
from echox.models.llm import IN_BITS, Place, load_llm
from echox.models.packed import most_rows, round_to_bits
from echox.models.s2t import SpeechToText
from echox.models.slots import Row, prefill, step
from echox.models.t2c import TextToCodec
from echox.models.t2c_config import T2CConfig
from echox.models.vocoder import UnitVocoder, VocoderConfig
from echox.models.weights import WeightFiles, write_shards
from echox.released.config import ReleasedConfig
from echox.released.keymap import echo_config, expected_shapes, fill, s2t_config, t2c_values
from echox.released.open import TextModel, fresh

STAND_IN = {
    **SIZES["EchoX-3B"], "vocab_size": 16_000, "hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 4,
    "num_attention_heads": 8, "head_dim": 64, "unit_model": "small",
}  # fmt: skip
LAYOUTS = {**SIZES, "stand-in": STAND_IN}


def placeholder(build, dtype: torch.dtype, device: str):
    """Return a module with small random weights."""
    with fresh(dtype):
        module = build().eval().to(device)
    for parameter in module.requires_grad_(False).parameters():
        parameter.uniform_(-0.02, 0.02)
    return module


def seconds(function, count: int, device: str) -> float:
    """Return the seconds of one of `count` calls, after one that does not count."""
    clock = time.perf_counter if device.startswith("cuda") or torch.get_num_threads() > 1 else time.process_time
    function()
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    began = clock()
    for _ in range(count):
        function()
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return (clock() - began) / count


@torch.inference_mode()
def llm_seconds(llm: LlamaForCausalLM, positions: int, count: int, device: str) -> float:
    """Return the seconds of one LLM token after `positions`."""
    weight, body = llm.model.norm.weight, llm.model
    slots = [prefill(body, [Row(torch.zeros(positions, len(weight), dtype=weight.dtype, device=device))])[0]]
    table = llm.model.embed_tokens.weight

    def once() -> None:
        slots[0], state_BH = step(body, slots[0], table[:1])
        llm.lm_head(state_BH).argmax(-1)

    return seconds(once, count, device)


@torch.inference_mode()
def t2c_seconds(t2c: TextToCodec, released: bool, positions: int, count: int, device: str) -> float:
    """Return the seconds of one unit token, ours or with the table rebuilt and the full logits of the released code."""
    weight = t2c.text_adapter.weight
    slots = [prefill(t2c.body, [Row(torch.zeros(positions, len(weight), dtype=weight.dtype, device=device))])[0]]
    token = torch.tensor([t2c.config.text_vocab_size], device=device)

    def once() -> None:
        if released:
            table = torch.cat([t2c.text_embedding.weight, t2c.unit_embedding.weight])
            inputs_BW = t2c.text_adapter(torch.nn.functional.embedding(token, table))
        else:
            inputs_BW = t2c.embed_tokens(token)
        slots[0], state_BW = step(t2c.body, slots[0], inputs_BW)
        (t2c.head(state_BW) if released else t2c.token_logits(state_BW)).argmax(-1)

    return seconds(once, count, device)


def report(name: str, each: float, size: float) -> None:
    print(f"| {name} | {size / 1e6:,.0f} MB | {1 / each:,.1f} | {size / each / 1e9:.1f} GB/s |")


def measure(size: str, layers: int, dtype_name: str, device: str, count: int, quantize: str | None) -> None:
    """Print the table of one size; what is quantized computes in float32."""
    dtype, width = DTYPES[dtype_name], DTYPES[dtype_name].itemsize
    whole = ReleasedConfig.from_dict(LAYOUTS[size])
    layers = min(layers, whole.llm.num_hidden_layers)
    config = ReleasedConfig.from_dict({**LAYOUTS[size], "num_hidden_layers": layers})
    numbers = f"{quantize or dtype_name}, {device}, threads: {torch.get_num_threads()}"
    print(f"{size}, {layers} of {whole.llm.num_hidden_layers} LLM layers, {numbers}\n")
    print("| step | bytes read per token | tokens/s | rate |\n|---|---|---|---|")
    llm = placeholder(lambda: LlamaForCausalLM(config.llm), dtype, device)
    if quantize:
        round_to_bits(llm.get_decoder(), IN_BITS[quantize], llm.get_output_embeddings())
        llm.float()
    each, size_cut = llm_seconds(llm, 500, count, device), llm_step_bytes(config, quantize or dtype_name, 500)
    report(f"LLM, {layers} layers", each, size_cut)
    full = llm_step_bytes(whole, quantize or dtype_name, 500)
    report(f"LLM, all {whole.llm.num_hidden_layers} (estimate)", each * full / size_cut, full)
    del llm
    if config.t2c is not None:
        t2c = placeholder(lambda: TextToCodec(T2CConfig(**t2c_values(config))), dtype, device)
        for name, released in (("T2C", False), ("T2C, the released way", True)):
            each = t2c_seconds(t2c, released, 200, count, device)
            report(name, each, t2c_step_bytes(config, width, 200, released))
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


def peak_of_loading(folder: Path, dtype: torch.dtype) -> tuple[int, int, int]:
    """Return the bytes that this process held before loading a checkpoint, at most while loading it, and those of its weights."""
    before, config, files = memory("VmRSS"), ReleasedConfig.load(folder), WeightFiles(folder)
    config.llm.tie_word_embeddings = config.tied
    llm = load_llm(folder, Place(dtype=dtype), kind=TextModel, config=config.llm)
    with fresh(dtype):
        t2c = TextToCodec(T2CConfig(**t2c_values(config)))
        parts = {
            "s2t": SpeechToText(s2t_config(config), llm),
            "t2c": t2c,
            "echo": EchoDecoder(echo_config(config), t2c),
        }
    for part, module in parts.items():
        fill(module, part, files)
    held = {id(p): p.numel() * p.element_size() for module in parts.values() for p in module.parameters()}
    return before, memory("VmHWM"), sum(held.values())


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
    parser.add_argument("--quantize", choices=list(IN_BITS), help="round the LLM's layers, on a processor")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--count", type=int, default=8)
    parser.add_argument("--load", action="store_true", help="measure the peak memory of loading instead")
    parser.add_argument("--vocabulary", type=int, default=128_257, help="text vocabulary of the --load checkpoint")
    parser.add_argument("--peak", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.quantize and (options.device != "cpu" or options.load or not most_rows()):
        parser.error("--quantize is measured on a processor with AVX2 or AVX-512, and not with --load")
    if options.peak:
        print(*peak_of_loading(Path(options.peak), DTYPES[options.dtype]))
    elif options.load:
        measure_loading(options.size, options.layers, options.vocabulary)
    else:
        measure(options.size, options.layers, options.dtype, options.device, options.count, options.quantize)


if __name__ == "__main__":
    main()
