"""Low-rank adapters on a causal LM: trained with peft, applied without it; it knows no stage.

At inference the low-rank product is added into the weights once (spec section 2.2: released weights are merged), so that a
token costs what it costs in the text model; the text model itself is had back by loading it again.

Legend: I input width, O output width, R rank.
"""

import re
from dataclasses import dataclass
from typing import Annotated, Any, cast

import torch
from torch import nn

from echox.errors import ModelError, require
from echox.models.bounds import Factor, Few, Rank, Share, Text


@dataclass
class LoraSettings:
    """Rank, scale and targets; the defaults for the mini model, spec section 2.2 for the released ones (r 64, alpha 16)."""

    rank: Rank = 16  # 0: no adapters, the LLM as it is
    alpha: Factor = 32
    dropout: Share = 0.05
    targets: Annotated[tuple[Text, ...], Few] = ("q_proj", "k_proj", "v_proj", "o_proj")


def attach_lora(llm: nn.Module, settings: LoraSettings) -> nn.Module:
    """Put trainable low-rank adapters into `llm` in place (peft) and freeze all else; needs the train extra."""
    peft = require("peft", "train")
    config = peft.LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        bias="none",
        target_modules=list(settings.targets),
    )
    llm.requires_grad_(False)
    llm = peft.inject_adapter_in_model(config, llm)
    for parameter in llm.parameters():
        if parameter.requires_grad:  # in bfloat16 a small step on a weight of ordinary size rounds to none
            parameter.data = parameter.data.float()
    return llm


def lora_state(llm: nn.Module) -> dict[str, torch.Tensor]:
    """Return {"<linear>.A" (R, I), "<linear>.B" (O, R)} of an LLM that `attach_lora` prepared."""
    state = {}
    for name, value in llm.state_dict().items():
        match = re.fullmatch(r"(.+)\.lora_([AB])\.default\.weight", name)
        if match:
            state[f"{match[1]}.{match[2]}"] = value.detach()
    return state


def buffer_name(linear: str, part: str) -> str:
    """Return the buffer of matrix `part` (A or B) of a linear; a module's own buffers may not have dots."""
    return f"{linear.replace('.', '/')}/{part}"


class LoraWeights(nn.Module):
    """The low-rank matrices of every adapted linear, as buffers that save and load with a model part."""

    def __init__(self, settings: LoraSettings, shapes: dict[str, tuple[int, int]]) -> None:
        super().__init__()
        self.settings = settings
        self.names = sorted(shapes)
        for name in self.names:
            O, I = shapes[name]
            self.register_buffer(buffer_name(name, "A"), torch.zeros(settings.rank, I))
            self.register_buffer(buffer_name(name, "B"), torch.zeros(O, settings.rank))

    @classmethod
    def for_llm(cls, settings: LoraSettings, llm: nn.Module) -> "LoraWeights":
        """Return zero adapters for every linear of `llm` that `settings.targets` names."""
        shapes = {}
        for name, module in llm.named_modules() if settings.rank else ():
            if isinstance(module, nn.Linear) and name.rpartition(".")[2] in settings.targets:
                shapes[name] = (module.out_features, module.in_features)
        return cls(settings, shapes)

    def copy_from(self, state: dict[str, torch.Tensor]) -> None:
        """Take the matrices of `lora_state`; ModelError when the sets of linears differ."""
        wanted = {f"{name}.{part}" for name in self.names for part in "AB"}
        if set(state) != wanted:
            raise ModelError(f"LoRA matrices do not fit the LLM: {sorted(set(state) ^ wanted)[0]} differs.")
        for name, value in state.items():
            linear, _, part = name.rpartition(".")
            self.get_buffer(buffer_name(linear, part)).copy_(value)

    @torch.no_grad()
    def delta(self, name: str) -> torch.Tensor:
        """Return what linear `name` gains, shape (O, I): alpha / R * B A."""
        scale = self.settings.alpha / self.settings.rank
        return scale * self.get_buffer(buffer_name(name, "B")).float() @ self.get_buffer(buffer_name(name, "A")).float()

    @torch.no_grad()
    def merge_into(self, llm: nn.Module) -> None:
        """Add every delta to the weights of `llm`, in place."""
        for name in self.names:
            weight = llm.get_parameter(f"{name}.weight")
            weight.add_(self.delta(name).to(weight.device, weight.dtype))
            cast("Any", llm).folder = None  # these are no folder's weights any more
