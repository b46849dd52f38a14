"""When to cut the text stream for the voice (spec section 6); pure state machines over tokens, they know no model.

A segment is a run of answer tokens that is voiced together. `PhraseSegmenter` (the default) cuts at the ends of sentences and
clauses, so that each segment is a breath; `TriggerSegmenter` is the paper's: where the hidden state comes close to the trigger
feature and is a local maximum of closeness.

Both answer each token with the number of tokens after which a segment ends that has become whole, or None.

    tokens     The | answer | is | Paris | , | which | lies | ...
    phrase                            cut ^ (a clause ended and the next token starts a word)
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Protocol, Self

from pydantic import Field

SENTENCE_ENDS = (".", "!", "?", ":", ";", '."', "\n")
SHORTENED = (
    "Dr Ft Jr Mr Mrs Ms Mt No Nos Prof Sr St vs Capt Col Gen Gov Lt Rep Rev Sen Sgt Jan Feb Mar Apr Aug Sep Sept Oct Nov Dec"
    " Fig Vol Ch fig vol ch pp approx ca cf etc al sq est Apt Dept Hwy Ste"
)
ABBREVIATED = re.compile(rf"\b(?:[A-Za-z]|{SHORTENED.replace(' ', '|')})\.\Z")  # U.|S., Dr.| Who
GOES_ON = re.compile(rf"(?<!\d)\d{{1,3}}\.\Z|{ABBREVIATED.pattern}")  # 3.|5
CLOSING = "[\"')\\]\u2019\u201d\u00bb]"
FULL_STOP = re.compile(rf"(?:[.!?\u2026]{CLOSING}*|\n)\Z")
PAUSE = re.compile(rf"(?:\.\.\.|\u2026|{CLOSING})\Z")  # before a small letter
CLAUSE_ENDS = (",", " -", ")")
FUNCTION_WORDS = frozenset(
    "a an the and or but nor of in on at by for from with to into over under about than that which who whose when where "
    "because while if as is are was were be been has have had do does did can could will would may might must should it he "
    "she they we i you this these those its his her their our my your not no".split()
)


Tokens = Annotated[int, Field(strict=True, ge=1, le=1000)]
NoneOrTokens = Annotated[int, Field(strict=True, ge=0, le=1000)]


class PhraseSettings:
    """What a recipe or a config.json may say of the phrase rule (`PhraseSegmenter`)."""

    shortest: Tokens
    clause: Tokens
    longest: Tokens
    first_phrase: NoneOrTokens
    first_longest: Tokens
    early: NoneOrTokens


class TriggerSettings:
    """What a config.json may say of the trigger rule (`TriggerSegmenter`)."""

    threshold: Annotated[float, Field(ge=-1, le=1)]
    window: Annotated[int, Field(strict=True, ge=0, le=100)]
    shortest: NoneOrTokens
    longest: Tokens


def ends_sentence(text: str) -> bool:
    """Say whether a text ends as a whole sentence does; not within a number, behind an initial or an abbreviation."""
    text = text.rstrip(" ")
    return bool(FULL_STOP.search(text)) and not GOES_ON.search(text)


def split_sentences(text: str) -> Iterator[str]:
    """Yield the sentences of a text; blank lines part paragraphs, other ends of lines are spaces."""
    for paragraph in re.split(r"\n\s*\n", text):
        words, said = paragraph.split(), list[str]()
        for word, following in zip(words, [*words[1:], ""], strict=False):
            said.append(word)
            pauses = PAUSE.search(word) and following[:1].islower()  # "Wait... what?" he asked
            if not following or (ends_sentence(word) and not pauses):
                yield " ".join(said)
                said = []


class Segmenter(Protocol):
    """Cuts an answer as it grows."""

    def push(self, piece: str, score: float = 0.0) -> int | None:
        """Take the next token's text and the closeness of its state to the trigger feature; return where a segment ends."""
        ...

    def fresh(self) -> Self:
        """Return one with the same settings for another answer."""
        ...


@dataclass
class PhraseSegmenter:
    """Cuts before a token that starts a word: after a sentence end, after a clause of some length, or at `longest`.

    Nothing is heard before the first segment is whole, so that one is shorter: it may also end where a phrase does, which is
    before a function word that follows another kind of word ("The capital of France | is Paris"). With several `early` segments
    the second may be twice as long, the third three times, so that each is ready when the one before has been heard.
    """

    shortest: int = 3  # tokens before a sentence end may cut
    clause: int = 7  # tokens before a comma may cut
    longest: int = 20  # tokens after which any word boundary cuts
    first_phrase: int = (
        6  # tokens of the first segment before the end of a phrase may cut; 0: the first is as the others
    )
    first_longest: int = 10  # tokens of the first segment after which any word boundary cuts
    early: int = 1  # segments that end so, the second after twice as many tokens, the third after three times as many
    text: str = field(default="", init=False)
    count: int = field(default=0, init=False)
    segments: int = field(default=0, init=False)  # that have ended
    total: int = field(default=0, init=False)  # tokens of the answer

    def push(self, piece: str, score: float = 0.0) -> int | None:
        """See `Segmenter.push`: a segment may end before a token that starts a word."""
        cut = self.total if piece[:1].isspace() and self._complete(piece) else None
        if cut is not None:
            self.text, self.count, self.segments = "", 0, self.segments + 1
        self.text += piece
        self.count += 1
        self.total += 1
        return cut

    def fresh(self) -> Self:
        """See `Segmenter.fresh`."""
        return replace(self)

    def _complete(self, piece: str) -> bool:
        text = self.text.rstrip(" ")
        if text.endswith(SENTENCE_ENDS) and not ABBREVIATED.search(text):
            return self.count >= self.shortest
        if _parts_amount(text, piece):
            return False
        if self.first_phrase and self.segments < self.early:
            size = self.count / (self.segments + 1)
            if size >= self.first_longest or (size >= self.first_phrase and _starts_phrase(text, piece)):
                return True
        return self.count >= self.longest or (text.endswith(CLAUSE_ENDS) and self.count >= self.clause)


def _parts_amount(text: str, piece: str) -> bool:
    """Say whether a cut before `piece` would part a number from its unit or sign ("8,849 | m", "12 | + 5", "12 + | 5")."""
    word = piece.strip()
    if text[-2:-1].isspace() and text[-1:] in "=+-−×÷*/" and word[:1].isdigit():
        return True
    short = len(word) <= 2 and word.lower() not in FUNCTION_WORDS
    return text[-1:].isdigit() and not word[:1].isdigit() and (short or not word[:1].isalpha())


def _starts_phrase(text: str, piece: str) -> bool:
    """Say whether a new phrase begins with `piece`: a function word after another kind of word."""
    before = text.rpartition(" ")[2].lower()
    return piece.strip().lower() in FUNCTION_WORDS and before not in FUNCTION_WORDS


@dataclass
class TriggerSegmenter:
    """The sliding-window rule of spec section 6.2 over similarities to the trigger feature.

    A state is a cut when it is the maximum of the `window` states on both sides and either scores over `threshold` with
    `shortest` states behind it, or `longest` are waiting.
    """

    threshold: float = 0.1
    window: int = 5
    shortest: int = 20
    longest: int = 50
    scores: list[float] = field(default_factory=list, init=False)
    start: int = field(default=0, init=False)

    def fresh(self) -> Self:
        """See `Segmenter.fresh`."""
        return replace(self)

    def push(self, piece: str, score: float = 0.0) -> int | None:
        """See `Segmenter.push`: a segment ends some tokens back, where it is known that no closer state follows."""
        self.scores.append(score)
        k = len(self.scores) - 1 - self.window
        if k < 0:
            return None
        around = self.scores[max(0, k - self.window) :]
        waiting = k - self.start
        peak = self.scores[k] == max(around)
        if peak and (waiting >= self.longest or (self.scores[k] > self.threshold and waiting >= self.shortest)):
            self.start = k + 1
            return k + 1
        return None


def cuts(
    pieces: Sequence[str], segmenter: Segmenter | None = None, scores: Sequence[float] = ()
) -> Iterator[tuple[int, int, int]]:
    """Yield (first, end, known) of every segment of a whole text: it is known to end once `known` tokens have come."""
    segmenter, first = segmenter.fresh() if segmenter else PhraseSegmenter(), 0
    for known, (piece, score) in enumerate(zip(pieces, scores or [0.0] * len(pieces), strict=True), start=1):
        end = segmenter.push(piece, score)
        if end is not None:
            yield first, end, known
            first = end
    if first < len(pieces):
        yield first, len(pieces), len(pieces)


def cut_text(
    pieces: Sequence[str], segmenter: Segmenter | None = None, scores: Sequence[float] = ()
) -> list[tuple[int, int]]:
    """Return (first, end) of every segment of a whole text, given its tokens' texts and perhaps their scores."""
    return [(first, end) for first, end, _ in cuts(pieces, segmenter, scores)]
