"""Sizes of a unit vocoder and which of them fit together; it builds nothing (vocoder.py does)."""

import math
from typing import Annotated, Literal

from transformers import PreTrainedConfig

from echox.errors import ConfigError
from echox.models.bounds import Classes, Factor, Few, Flag, Layers, Odd, Positive, Rate, Samples, Share, Width

Sizes = Annotated[list[Positive] | tuple[Positive, ...], Few]


class VocoderConfig(PreTrainedConfig):
    """Sizes of a unit vocoder; the defaults of `hifigan` are the released ones (spec section 5)."""

    model_type = "echox_vocoder"

    generator: Literal["istft", "hifigan"] = "istft"
    num_units: Classes = 1000
    embedding_dim: Width = 128
    sample_rate: Rate = 16_000
    hop: Samples = 320  # samples per frame
    weight_norm: Flag = False  # True while a hifigan generator trains
    duration_width: Width = 128
    duration_kernel: Odd = 3
    duration_dropout: Share = 0.5
    # hifigan
    upsample_rates: Sizes = (5, 4, 4, 2, 2)
    upsample_kernels: Sizes = (11, 8, 8, 4, 4)
    upsample_channels: Width = 512
    resblock_kernels: Annotated[list[Odd] | tuple[Odd, ...], Few] = (3, 7, 11)
    resblock_dilations: Annotated[list[Sizes] | tuple[Sizes, ...], Few] = ((1, 3, 5), (1, 3, 5), (1, 3, 5))
    final_slope: Factor = 0.01  # of the last leaky ReLU: 0.01 in the released code, an oversight kept for compatibility
    # istft
    trunk_width: Width = 256
    trunk_layers: Layers = 8
    head_width: Width = 192
    head_layers: Layers = 4
    istft_kernel: Odd = 7
    istft_expansion: Positive = 3
    istft_steps: Positive = 4  # spectra per frame
    istft_fft: Samples = 320  # samples


def check_config(config: VocoderConfig) -> None:
    """Raise ConfigError when the sizes of `config` do not fit together."""
    if config.generator not in ("istft", "hifigan"):
        raise ConfigError(f"vocoder generator {config.generator!r} is unknown: choose istft or hifigan.")
    if config.generator == "hifigan":
        rates, kernels = config.upsample_rates, config.upsample_kernels
        if math.prod(rates) != config.hop:
            raise ConfigError(f"upsample_rates {list(rates)} multiply to another hop than {config.hop}.")
        fit = len(kernels) == len(rates) and all(
            k >= r and (k - r) % 2 == 0 for k, r in zip(kernels, rates, strict=False)
        )
        if not fit:
            raise ConfigError(f"upsample_kernels {list(kernels)} do not fit the rates {list(rates)}.")
        if len(config.resblock_kernels) != len(config.resblock_dilations) or not len(config.resblock_kernels):
            raise ConfigError(
                "resblock_dilations must have one row for each of resblock_kernels, and there must be one."
            )
        if config.upsample_channels % 2 ** len(rates):
            raise ConfigError(f"upsample_channels {config.upsample_channels} cannot be halved {len(rates)} times.")
    if config.generator == "istft":
        spectrum_hop, rest = divmod(config.hop, config.istft_steps)
        if rest or config.istft_fft % spectrum_hop or (config.istft_fft - spectrum_hop) % 2:
            raise ConfigError(
                f"istft_steps {config.istft_steps} and istft_fft {config.istft_fft} do not divide the hop {config.hop}."
            )
