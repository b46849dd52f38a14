"""The released inference path, written from spec sections 2, 3, 6 and 9 line by line: slow, batch one, nothing shared.

It is the twin that the library is compared with: torch's own TransformerEncoder over the wrong axis,
MultiheadAttention with dropped frames masked, a (V + U) x H table concatenated at every step, and the whole sequence
computed anew for every token.
"""

import re

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from transformers import LlamaModel

from echox.released.config import ReleasedConfig


def load(module: nn.Module, state: dict[str, torch.Tensor], prefix: str) -> nn.Module:
    module.load_state_dict({n.removeprefix(prefix): t for n, t in state.items() if n.startswith(prefix)}, strict=True)
    return module.eval()


def run_llama(llama: LlamaModel, embeds_SH: torch.Tensor, attend_S: torch.Tensor | None = None) -> torch.Tensor:
    """All states (S, H) with a hand-made causal mask and positions 0..S-1."""
    S = len(embeds_SH)
    allowed = torch.ones(S, S, dtype=torch.bool).tril()
    if attend_S is not None:
        allowed = allowed & attend_S[None]
    mask = torch.zeros(S, S).masked_fill(~allowed, torch.finfo(torch.float32).min)
    with torch.no_grad():
        return llama(
            inputs_embeds=embeds_SH[None],
            attention_mask=mask[None, None],
            position_ids=torch.arange(S)[None],
            use_cache=False,
        ).last_hidden_state[0]


class ReferenceEchoX:
    def __init__(self, config: ReleasedConfig, state: dict[str, torch.Tensor]) -> None:
        self.config, self.state = config, state
        H, heads = config.llm.hidden_size, config.llm.num_attention_heads
        own = ("model.layers.", "model.embed_tokens.", "model.norm.")
        self.llama = load(LlamaModel(config.llm), {n: t for n, t in state.items() if n.startswith(own)}, "model.")
        layer = nn.TransformerEncoderLayer(d_model=H, nhead=heads, dim_feedforward=2 * H, dropout=0.1, norm_first=True)
        encoder = nn.TransformerEncoder(layer, num_layers=1, enable_nested_tensor=False)
        self.alignment = load(encoder, state, "model.asr_transformer_encoder.")
        self.look_back = load(
            nn.MultiheadAttention(H, heads, dropout=0.1, batch_first=True), state, "model.lbm.encoder_attn."
        )
        if config.t2c is not None:
            self.t2c = LlamaModel(config.t2c)
            self.t2c.embed_tokens = nn.Embedding(config.llm.vocab_size, H)
            load(self.t2c, state, "unit_translator.model.")

    @property
    def head(self) -> torch.Tensor:
        return self.state["model.embed_tokens.weight" if self.config.tied else "lm_head.weight"]

    def speech(self, frames_FD: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(v, H) embeddings and the tokens (T,) of one audio, from encoder frames (2T, D), turn axis of length one."""
        s = self.state
        audio = frames_FD[None]
        audio = audio.view(1, audio.shape[1] // 2, 2 * audio.shape[2])
        audio = F.linear(audio, s["model.mm_projector1.weight"], s["model.mm_projector1.bias"])
        with torch.no_grad():
            audio = self.alignment(audio)
            audio = F.layer_norm(audio, audio.shape[-1:], s["model.out_norm.weight"], s["model.out_norm.bias"])
            tokens = (audio @ s["model.audio_feature_head.weight"].T).argmax(-1)
            shrink = tokens.roll(1) != tokens
            shrink[:, 0] = True
            kept = audio[shrink][None]
            mixed, _ = self.look_back(query=kept, key=audio, value=audio, key_padding_mask=~shrink)
            result = mixed + kept
            norm = "model.lbm.atten_layer_norm."
            result = F.layer_norm(result, result.shape[-1:], s[f"{norm}weight"], s[f"{norm}bias"])
        return result[0], tokens[0]

    def embed(
        self, ids: list[int], audios: list[torch.Tensor], patch: int, pad: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Prompt embeddings and mask, placeholders replaced one after the other with a running shift."""
        current_ids = torch.tensor(ids)
        current = self.state["model.embed_tokens.weight"][current_ids]
        shift = 0
        for index, place in enumerate(torch.where(current_ids == patch)[0].tolist()):
            audio, at = audios[index], place + shift
            current_ids = torch.cat(
                [current_ids[:at], current_ids[at : at + 1].repeat(len(audio)), current_ids[at + 1 :]]
            )
            current = torch.cat([current[:at], audio, current[at + 1 :]])
            shift += len(audio) - 1
        mask = current_ids.ne(pad) if audios else torch.ones(len(current_ids), dtype=torch.bool)
        return current, mask

    def answer(self, embeds: torch.Tensor, mask: torch.Tensor, eos: int, period: int, limit: int):
        """Greedy tokens, the state that predicted each, and its trigger score; everything recomputed per token."""
        tokens, states, scores = [], [], []
        for _ in range(limit):
            state = run_llama(self.llama, embeds, mask)[-1]
            token = int((self.head @ state).argmax())
            if token == eos:
                break
            tokens.append(token)
            states.append(state)
            scores.append(F.cosine_similarity(state, self.head[period], dim=0).item())
            embeds = torch.cat([embeds, self.state["model.embed_tokens.weight"][token][None]])
            mask = torch.cat([mask, torch.ones(1, dtype=torch.bool)])
        return tokens, torch.stack(states), scores

    def segment_inputs(self, states: torch.Tensor, before: list[int], after: list[int]) -> torch.Tensor:
        s, p = self.state, "unit_translator."
        hidden = F.relu(F.linear(states, s[f"{p}aligner_MLP.0.weight"], s[f"{p}aligner_MLP.0.bias"]))
        aligned = F.linear(hidden, s[f"{p}aligner_MLP.3.weight"], s[f"{p}aligner_MLP.3.bias"])
        table = s[f"{p}model.embed_tokens.weight"]
        joined = torch.cat([table[before], aligned, table[after]])
        return F.linear(joined, s[f"{p}adapter.weight"], s[f"{p}adapter.bias"])

    def t2c_logits(self, inputs: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        return run_llama(self.t2c, inputs, mask) @ self.state["unit_translator.lm_head.weight"].T

    def units(self, inputs: torch.Tensor, eos: int, limit: int, allowed: list[int] | None = None) -> list[int]:
        """Greedy unit tokens with the V + U table rebuilt every step; `allowed` restricts the choice."""
        s, p = self.state, "unit_translator."
        tokens: list[int] = []
        for _ in range(limit):
            logits = self.t2c_logits(inputs)[-1]
            if allowed is not None:
                only = torch.full_like(logits, float("-inf"))
                only[allowed] = logits[allowed]
                logits = only
            token = int(logits.argmax())
            if token == eos:
                break
            tokens.append(token)
            table = torch.cat([s[f"{p}model.embed_tokens.weight"], s[f"{p}unit_embedding.weight"]], dim=0)
            row = F.linear(F.embedding(torch.tensor([token]), table), s[f"{p}adapter.weight"], s[f"{p}adapter.bias"])
            inputs = torch.cat([inputs, row])
        return tokens


def parse(text: str) -> list[int]:
    if "▁" in text:
        text = "".join(re.findall(r"<\|unit_(.*?)\|>", text))
    return [int(unit) for unit in re.findall(r"\d+", text) if int(unit) < 1000]


class ReferenceCodeHifigan(nn.Module):
    """fairseq's CodeHiFiGAN generator as described in spec section 5, with old-style weight norm; speakers optional."""

    def __init__(self, cfg: dict) -> None:
        super().__init__()
        wn = nn.utils.weight_norm
        dim, channels = cfg["embedding_dim"], cfg["upsample_initial_channel"]
        self.cfg = cfg
        self.dict = nn.Embedding(cfg["num_embeddings"], dim)
        if cfg.get("multispkr"):
            self.spkr = nn.Embedding(cfg.get("num_speakers", 200), dim)
        params = cfg["dur_predictor_params"]
        hidden, kernel = params["var_pred_hidden_dim"], params["var_pred_kernel_size"]
        self.dur_predictor = nn.Module()
        first = nn.Conv1d(params["encoder_embed_dim"], hidden, kernel, padding=(kernel - 1) // 2)
        self.dur_predictor.conv1 = nn.Sequential(first, nn.ReLU())
        self.dur_predictor.ln1 = nn.LayerNorm(hidden)
        self.dur_predictor.conv2 = nn.Sequential(nn.Conv1d(hidden, hidden, kernel, padding=1), nn.ReLU())
        self.dur_predictor.ln2 = nn.LayerNorm(hidden)
        self.dur_predictor.proj = nn.Linear(hidden, 1)
        self.conv_pre = wn(nn.Conv1d(cfg["model_in_dim"], channels, 7, padding=3))
        self.ups, self.resblocks = nn.ModuleList(), nn.ModuleList()
        for rate, size in zip(cfg["upsample_rates"], cfg["upsample_kernel_sizes"], strict=True):
            self.ups.append(wn(nn.ConvTranspose1d(channels, channels // 2, size, rate, padding=(size - rate) // 2)))
            channels //= 2
            for k, dilations in zip(cfg["resblock_kernel_sizes"], cfg["resblock_dilation_sizes"], strict=True):
                block = nn.Module()
                block.convs1 = nn.ModuleList(
                    wn(nn.Conv1d(channels, channels, k, dilation=d, padding=(k * d - d) // 2)) for d in dilations
                )
                block.convs2 = nn.ModuleList(
                    wn(nn.Conv1d(channels, channels, k, padding=(k - 1) // 2)) for _ in dilations
                )
                self.resblocks.append(block)
        self.conv_post = wn(nn.Conv1d(channels, 1, 7, padding=3))

    @torch.no_grad()
    def durations(self, codes: list[int]) -> torch.Tensor:
        x = self.dict(torch.tensor([codes]))
        predictor = self.dur_predictor
        x = predictor.ln1(predictor.conv1(x.transpose(1, 2)).transpose(1, 2))
        x = predictor.ln2(predictor.conv2(x.transpose(1, 2)).transpose(1, 2))
        return torch.clamp(torch.round(torch.exp(predictor.proj(x).squeeze(2)) - 1).long(), min=1)[0]

    @torch.no_grad()
    def forward(self, codes: list[int], speaker: int | None = None) -> np.ndarray:
        x = self.dict(torch.tensor([codes])).transpose(1, 2)
        x = torch.repeat_interleave(x, self.durations(codes), dim=2)
        if speaker is not None:
            x = torch.cat([x, self.spkr(torch.tensor([[speaker]])).transpose(1, 2).expand(-1, -1, x.shape[2])], dim=1)
        x = self.conv_pre(x)
        count = len(self.cfg["resblock_kernel_sizes"])
        for i, up in enumerate(self.ups):
            x = up(F.leaky_relu(x, 0.1))
            total = 0
            for block in self.resblocks[i * count : (i + 1) * count]:
                y = x
                for c1, c2 in zip(block.convs1, block.convs2, strict=True):
                    y = y + c2(F.leaky_relu(c1(F.leaky_relu(y, 0.1)), 0.1))
                total = total + y
            x = total / count
        return torch.tanh(self.conv_post(F.leaky_relu(x))).squeeze().numpy()


def cut_segments(scores: list[float], window: int = 5, threshold: float = 0.1, short: int = 20, long: int = 50):
    """Segments [start, end) read off spec section 6.2 line by line."""
    segments, start = [], 0
    for c in range(len(scores)):
        k = c - window
        if k < 0:
            continue
        seen = scores[: c + 1]
        peak = seen[k] == max(seen[max(0, k - window) : k + window + 1])
        if peak and (k - start >= long or (seen[k] > threshold and k - start >= short)):
            segments.append((start, k + 1))
            start = k + 1
    if start < len(scores):
        segments.append((start, len(scores)))
    return segments


def nucleus(logits_V: torch.Tensor, temperature: float, top_p: float) -> torch.Tensor:
    """The released filter on the whole vocabulary, step by step: probabilities (V,) to sample from."""
    scaled = logits_V / temperature
    ordered, order = torch.sort(scaled, descending=True)
    removed = torch.cumsum(F.softmax(ordered, dim=-1), dim=-1) > top_p
    removed[1:] = removed[:-1].clone()
    removed[0] = False
    scaled = scaled.clone()
    scaled[order[removed]] = float("-inf")
    return F.softmax(scaled, dim=-1)
