"""S-Align's objective (spec B2.5): 0.7 ST + 0.3 CTC + 0.5 MT + alignment + recognition, each on the rows that allow it.

    L = [u >= 3000] (0.7 CE(y | speech) + 0.3 CTC(x)) + 0.5 CE(y | text) + encoders' alignment + w CTC(x)

Every term is a mean over tokens (spec divides the sum of all by all tokens, which gives long sides more). It knows no data format.

Legend: B rows, L tokens with their end, V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from pydantic import Field, NonNegativeFloat, NonNegativeInt
from torch import nn

from echox.config.load import Rate, Settings
from echox.data.translation import Triple
from echox.models.discriminators import ModalityDiscriminator
from echox.models.hearing import Hearing
from echox.models.ragged import pad_right
from echox.models.speech_translator import BLANK, END, PAD, Heard, Positioned, SpeechTranslatorModel
from echox.objectives.loss import Loss
from echox.objectives.modality import (
    AlignmentSettings,
    Schedule,
    Side,
    discriminator_loss,
    encoder_loss,
    mix,
    sentence_contrast,
    token_contrast,
    with_blanks,
)
from echox.objectives.s2t import HIDDEN_FRAMES, HIDDEN_SPANS, ctc_loss, hide_spans

LEAST_RECOGNITION = 0.1  # recognition that is weighed down below this stops (spec B2.5)


class TranslationWeights(Settings):
    """Weights of the parts (spec B2.5)."""

    st: NonNegativeFloat = 0.7
    ctc: NonNegativeFloat = 0.3
    mt: NonNegativeFloat = 0.5
    recognition: NonNegativeFloat = 1.0  # CTC of all speech, until `schedule.recognise_until`
    task_norm_every: NonNegativeInt = 0  # steps until gradients weigh recognition anew; 0: never
    smoothing: Rate = 0.2
    masks: int = Field(default=HIDDEN_SPANS, ge=0)  # spans of frames hidden in training
    mask_frames: int = Field(default=HIDDEN_FRAMES, ge=1)


@dataclass
class Written:
    """Logits (B, L, V) of target tokens (B, L), which are PAD beyond their end."""

    logits_BLV: torch.Tensor
    targets_BL: torch.Tensor

    def loss(self, smoothing: float) -> torch.Tensor:
        """Return the mean cross-entropy a token."""
        return nn.functional.cross_entropy(
            self.logits_BLV.float().flatten(0, 1),
            self.targets_BL.flatten(),
            ignore_index=PAD,
            label_smoothing=smoothing,
        )

    def accuracy(self) -> torch.Tensor:
        """Return the share of target tokens that are the likeliest."""
        right_BL = self.logits_BLV.argmax(-1) == self.targets_BL
        return right_BL[self.targets_BL != PAD].float().mean()


@dataclass
class Joint:
    """One pass: what was written from speech and from text, what was heard, and both sides that are held together."""

    step: int
    mt: Written | None = None
    st: Written | None = None
    heard: Heard | None = None
    said: list[list[int]] = field(default_factory=list)
    sides: list[Side] = field(default_factory=list)  # the discriminator's: mixed speech, transcripts with blanks
    pair: tuple[Positioned, Positioned] | None = None  # encoder states of utterances and of their transcripts
    runs: Positioned | None = None


class JointPass(nn.Module):
    """Rows in, everything the two players learn from out; with text rows alone it is the text model's pass."""

    recognition: torch.Tensor

    def __init__(
        self,
        model: SpeechTranslatorModel,
        starts_word: list[bool],
        weights: TranslationWeights,
        alignment: AlignmentSettings,
        schedule: Schedule,
        encoder: Hearing | None = None,  # reads the sound of rows without states
    ) -> None:
        super().__init__()
        self.model, self.starts_word, self.encoder = model, starts_word, encoder
        self.weights, self.alignment, self.schedule = weights, alignment, schedule
        if alignment.target != "none":
            self.discriminator = ModalityDiscriminator(
                model.config.width, alignment.level, alignment.window, alignment.stride
            )
        self.register_buffer("recognition", torch.tensor(weights.recognition))

    def forward(self, rows: Sequence[Triple], step: int) -> Joint:
        """Return the pass of some rows as the schedule has it at `step`."""
        found = Joint(step)
        typed = [row for row in rows if row.translation]
        if typed and self.weights.mt:
            found.mt = self.write(self.model.read(*self.padded([row.transcript for row in typed])), typed)
        spoken = [row for row in rows if row.spoken]
        if spoken:
            self._hear(found, spoken)
        return found

    def frames(self, spoken: Sequence[Triple]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the encoder states (B, T, D) of rows with speech, as they were cached or heard now, and their lengths (B,)."""
        if self.encoder is None:
            held = [row.states_TD for row in spoken if row.states_TD is not None]
            states = [torch.from_numpy(states_TD.astype(np.float32)) for states_TD in held]
        else:
            states = self.encoder([row.wave() for row in spoken])
        return pad_right(states)[0].to(self.device), torch.tensor([len(row) for row in states]).to(self.device)

    def _hear(self, found: Joint, spoken: list[Triple]) -> None:
        """Add what comes of speech: CTC, and from their steps on shrinking, translation and alignment."""
        frames_BTD, lengths_B = self.frames(spoken)
        if self.training:
            frames_BTD = hide_spans(frames_BTD, lengths_B, self.weights.masks, self.weights.mask_frames)
        found.heard, found.said = self.model.hear(frames_BTD, lengths_B), [row.transcript for row in spoken]
        shrinks, step = found.step >= self.schedule.shrink_from, found.step
        found.runs = self.model.shrink(found.heard, self.training) if shrinks else self.model.unshrunk(found.heard)
        states = self.model.shared_layers(found.runs)
        translated = [number for number, row in enumerate(spoken) if row.translation]
        if translated and step >= self.schedule.translate_from:
            rows = torch.tensor(translated, device=self.device)
            some = Positioned(states.states_BNW[rows], states.mask_BN[rows])
            found.st = self.write(some, [spoken[number] for number in translated])
        if self.alignment.asked:
            self._align(found, states)

    def _align(self, found: Joint, states: Positioned) -> None:
        """Add both sides; under `shuffled` every utterance is held against the next one's transcript, one alone against none."""
        assert found.runs is not None  # noqa: S101  set before
        settings, bottom, said = self.alignment, self.alignment.place == "bottom", found.said
        if settings.shuffled and len(said) == 1:
            return
        transcripts = said[1:] + said[:1] if settings.shuffled else said
        if settings.contrast in ("sentence", "both"):
            found.pair = (states, self.model.read(*self.padded(transcripts)))
        if settings.target == "none" or (self.training and not self.schedule.adversarial(found.step)):
            return
        speech, speech_label_B = (found.runs if bottom else states), torch.zeros(len(said), device=self.device)
        tokens_BN, mixes = found.runs.tokens_BN, self.training and found.step >= self.schedule.mixing_from
        if mixes and tokens_BN is not None and float(torch.rand(())) < settings.mixing:
            runs, speech_label_B = mix(found.runs, self.model.embed(tokens_BN))
            speech = runs if bottom else self.model.shared_layers(runs)
        noisy = [
            with_blanks(row, self.starts_word, BLANK, settings.noise * self.training, settings.noise_most)
            for row in transcripts
        ]
        tokens, mask = self.padded([row for row, _ in noisy])
        text = Positioned(self.model.embed(tokens), mask) if bottom else self.model.read(tokens, mask)
        found.sides = [
            Side(speech, speech_label_B),
            Side(text, torch.tensor([label for _, label in noisy], device=self.device)),
        ]

    @property
    def device(self) -> torch.device:
        """Where the model stands."""
        return self.model.embeddings_VW.device

    def padded(self, rows: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return tokens (B, N), with their end, and their mask."""
        tokens, mask = pad_right([torch.tensor([*row, END]) for row in rows])
        return tokens.masked_fill(~mask, PAD).to(self.device), mask.to(self.device)

    def write(self, states: Positioned, rows: list[Triple]) -> Written:
        """Return what the decoder expects of the rows' translations."""
        targets_BL, _ = self.padded([row.translation for row in rows])
        return Written(self.model.logits(states, targets_BL), targets_BL)


class TranslatorObjective:
    """The encoders' and the decoder's part."""

    def __init__(self, joint: JointPass) -> None:
        self.joint = joint
        self.weighed = 0  # the last step in which recognition's weight moved, whatever is repeated or accumulated

    def __call__(self, found: Joint, step: int = 0) -> Loss:
        """Return the weighted sum of all terms of one pass."""
        terms, weights, joint = {}, self.joint.weights, self.joint
        if found.mt is not None:
            terms["mt"] = (weights.mt, found.mt.loss(weights.smoothing))
        if found.st is not None:
            terms["st"] = (weights.st, found.st.loss(weights.smoothing))
        if found.heard is not None:
            heard = found.heard
            ctc = ctc_loss(heard.logits_BTV.float().log_softmax(-1), heard.frames_B, found.said, BLANK)
            if "st" in terms:
                self.weigh_recognition(found.step, heard.states_BTW, terms["st"][1], ctc)
            ours = weights.ctc * (found.step >= joint.schedule.translate_from)
            terms["ctc"] = (ours + float(joint.recognition) * joint.schedule.recognises(found.step), ctc)
        terms |= self.alignment(found)
        total = sum((weight * value for weight, value in terms.values()), torch.zeros(()))
        parts = {name: value.detach() for name, (_, value) in terms.items()}
        written = {name: one for name, one in (("mt", found.mt), ("st", found.st)) if one}
        parts |= {f"{name}_accuracy": one.accuracy() for name, one in written.items()}
        over = {name: int((one.targets_BL != PAD).sum()) for name, one in written.items()}
        tokens = sum(over.values()) or sum(map(len, found.said))  # of speech without a translation, what is said
        over |= {f"{name}_accuracy": count for name, count in over.items()} | {"ctc": len(found.said)}
        if "contrast" in terms:
            over["contrast"] = len(found.said)
        if "token_contrast" in terms and found.runs is not None:
            over["token_contrast"] = int((found.runs.mask_BN & (found.runs.tokens_BN != BLANK)).sum())
        return Loss(total, parts, tokens, over=over)

    def alignment(self, found: Joint) -> dict[str, tuple[float, torch.Tensor]]:
        """Return the terms that bring the sides together, with their weights."""
        settings, terms = self.joint.alignment, {}
        if found.sides and found.step >= self.joint.schedule.encoders_from:
            weight = settings.weight * self.joint.schedule.adversarial(found.step)
            value = encoder_loss(self.joint.discriminator, found.sides, settings.target, settings.by_length)
            terms["adversarial"] = (weight, value)
        if found.pair is not None:
            terms["contrast"] = (settings.contrast_weight, sentence_contrast(*found.pair, settings.temperature))
        if found.runs is not None and found.runs.tokens_BN is not None and settings.contrast in ("token", "both"):
            value = token_contrast(
                found.runs, self.joint.model.embeddings_VW, settings.temperature, BLANK, int(settings.shuffled)
            )
            terms["token_contrast"] = (settings.contrast_weight, value)
        return terms

    def weigh_recognition(self, step: int, states_BTW: torch.Tensor, st: torch.Tensor, ctc: torch.Tensor) -> None:
        """Every so many steps u multiply recognition's weight by (gradient of ST / of CTC)^(u / every), as IMTL does.

        Gradients are taken at `states_BTW`, where speech leaves the adapter; while that is still, there are none.
        """
        every = self.joint.weights.task_norm_every
        if not every or step == self.weighed or step % every or not states_BTW.requires_grad:
            return
        self.weighed = step
        norms = [torch.autograd.grad(loss, states_BTW, retain_graph=True)[0].norm() for loss in (st, ctc)]
        ratio = float(norms[0] / norms[1].clamp(min=1e-9))
        self.joint.recognition.mul_(ratio ** (step / every))
        if float(self.joint.recognition) < LEAST_RECOGNITION:
            self.joint.recognition.zero_()


class DiscriminatorObjective:
    """The discriminator's part."""

    def __init__(self, joint: JointPass) -> None:
        self.joint = joint

    def __call__(self, found: Joint, step: int = 0) -> Loss:
        """Return its loss of one pass; it has none before speech is heard, or once its weight has fallen to zero."""
        settings = self.joint.alignment
        weight = settings.discriminator_weight * self.joint.schedule.adversarial(found.step)
        if not found.sides:
            return Loss(torch.zeros(()), tokens=0)
        value = discriminator_loss(self.joint.discriminator, found.sides, settings.by_length)
        return Loss(weight * value, {"bce": value.detach()}, sum(len(side.label_B) for side in found.sides))
