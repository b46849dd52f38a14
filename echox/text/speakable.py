"""Written English to words that can be said: numbers, money, dates, times, units and abbreviations; it knows no model.

    text --lines--> fold accents --> our few rules --kitten_text_processing--> words --> what no English voice can say is left out

The library does the work; the rules are what it reads wrong (tests/text/test_speakable.py holds both). `echox say` reads whole
lines so; of a language model's answer only the segments that hold a number, a sign, or a character beyond ASCII (`words_of`).
"""

import logging
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from html import unescape

from echox.errors import InputError, require
from echox.text.acronyms import name_letters
from echox.text.latex import FORMULA, without_latex
from echox.text.notation import nth, spelt
from echox.text.rules import ADJUNCT, NO_NAME, OWNED, RULES
from echox.text.segmenter import split_sentences
from echox.text.signs import COUNTED, KINGS, LETTERS, MARKS, MONEY, PER, ROMANS, SHORT, UNITS

log = logging.getLogger(__name__)
LONGEST = 240  # characters said at once
QUICK = 60  # characters that are read at once in a tenth of a second
AFTER_ONE = "and|diabetes|errors?|of|or"  # of a Part I; in "the part I saw" it is who saw
UNIT = re.compile(
    rf"((?<![\d.,/])1|(?<![\d.,/])(?<!\d )\d/\d|\b[Aa]n? \d[\d.,]*|{OWNED}\d[\d.,]*)?(?<=\d)(\s?|-)"
    rf"({'|'.join(map(re.escape, UNITS))})(?:/({'|'.join(PER)}|[a-z]{{3,}}))?(?![\w/'’]|(?<=W) [A-Z\d])"
)
ENTITY = re.compile(r"&#?\w{1,30};")  # of HTML
OWNER, NOUN = re.compile(OWNED), re.compile(f"[ -]{ADJUNCT}")
PLURAL = re.compile(r"s\b")
ABBREVIATION = re.compile(rf"(?<!\w)({'|'.join(SHORT)})\.(?=,|\s+[\w$£€]|(\s*$))")
_MONEY, _AMOUNT = "|".join(map(re.escape, MONEY)), r"(\d+(?:[.,]\d+)*(?: [mb]illion)?)"
SUM = re.compile(rf"(?<!\w)({_MONEY})\s?{_AMOUNT}|(?<![\w.,]){_AMOUNT}\s?({_MONEY})(?!\w)")
TELEPHONE = re.compile(
    r"(?<![\w+.-])(?:\+\d{1,3}[ .-]?(?:\(\d{1,4}\)[ .-]?)?\d{1,5}(?:[ .-]?\d{2,5}){1,4}"  # of any country
    r"|(?:1[ .-]?)?\(\d{3}\) ?\d{3}[ .-]\d{4}"
    r"|(?:1\.)?\d{3}[ .-]\d{3}[ .-]\d{4}|\d{3}-(?![1-9]\d00)\d{4}(?! [a-z]{3,}s\b)"  # of America
    r"|\d{5}-\d{4}|(?!1-8|\d{4}-\d\d-\d\d\b|\d\d?-\d\d?-\d{4}\b)(?=[\d-]*\d{3})\d+(?:-\d+){2,}(?:-X|X)?"  # a postcode; a book
    r"|0\d{2,4}/\d{4,8}|0(?!00 )\d{2,4}(?: \d{3,4}){1,3})"
    r"(?![\w-]|[.,]\d)"
)
SERIAL = re.compile(  # capitals and at least four digits, which are no year
    r"(?<![\w.-])(#?)(?=[\d-]*[A-Z])(?=(?:[A-Z-]*\d){4})(?=[A-Z\d-]*\d{3})(?!\d+[A-Z]{1,3}\b)"
    r"(?![A-Z]+-?(?:19|20)\d\d\b(?!-))([A-Z\d]+(?:-[A-Z\d]+)*)(?![\w-]|:\d)"
)
DIALLED = re.compile(
    r"\b((?:(?:[Cc]ode|PIN|CVV|[Pp]assword|ISBN(?:-1[03])?|(?:account|case|order|reference|serial|tracking) number)(?: is|:)?"
    r"|[Ee]nding in|[Pp]ort|[Ee]xt(?:ension|\.)|[Dd]ial)\s)(\d{3,})(?!\w|[.,]\d)"
    r"|\b((?:[Cc]all|[Rr]ing)\s)(\d{3})(?=\W*$|[.,;!?]| (?:or|if|in|for|now|when|and)\b)"
)
RULER = re.compile(
    rf"\b{NO_NAME}([A-Z]\w*[a-z]|(?:{'|'.join(COUNTED).lower()})(?= [IVX]{{2}}))"
    rf" ((?!XL\b)[IVXL]{{2,}}|I(?=\W*$|[,:;)]| (?:{AFTER_ONE})\b)|V(?=\W*$|[,:;)]| [a-z]))"
    r"(?!\w)(?! (?:access|drip|fluid|line)s?\b)"
)
GREEK = re.compile(r"(?<![^\W\d]{2})(?<![Α-ω])[Α-ΡΣ-Ωα-ω](?![^\Wa-zA-Z])")  # a letter of its own, no word
NEVER_SAID = ("\u200d", "\ufe0e", "\ufe0f")  # joiners and variants of emoji: left out with what they belong to
IN_A_SUM = re.compile(r"^( )([-+]) (?=\d)")  # where a part begins: "12 | + 5"
SIGN_NAMES = {"-": "minus", "+": "plus"}
NOT_PLAIN = re.compile(  # numbers, signs, what is no ASCII, names of pages and files; not "I like it.but"
    r"[\d$%&@#+=<>^*_`~|/\\]|[^\x00-\x7f]|\b[IVX]{2}|\b(?:e\.g|i\.e)\."
    r"|\w\.(?:com|net|org|edu|gov|io|ai|co|uk|txt|pdf|docx?|xlsx?|py|js|html?|css|json|csv|md|exe|zip|jpe?g|png|mp[34]|wav)\b"
)
BREATH = re.compile(
    r"(?<=[^\d,],) (?=\D)|(?<=,) (?=and |or )|(?<=\d,) (?=\d+,)"
)  # between items; not in "July 20, 1969"
PLAIN = re.compile(r"[A-Z]?[a-z']+(?:,? [a-z']+)*(?<!etc)[.!?]?")  # nothing that would be read otherwise


@dataclass(frozen=True)
class Speakable:
    """Words to say, and the characters that no English voice can say and that were left out, each once."""

    text: str
    left_out: str = ""


def speakable(text: str) -> Speakable:
    """Return `text` as it is read aloud; InputError when nothing of it can be said, MissingDependency without the library."""
    lines = [read_line(line) for line in said_lines(text)]
    left_out = "".join(dict.fromkeys("".join(line.left_out for line in lines)))
    return Speakable("\n".join(line.text for line in lines if line.text), left_out)


def said_lines(text: str) -> list[str]:
    """Return the lines of a text, each for `read_line`; InputError when nothing of them can be said."""
    if not any(c.isascii() and c.isalnum() for c in _fold(text)):
        raise InputError("the text holds nothing that can be said: this voice speaks English.")
    return text.splitlines()


def read_line(line: str) -> Speakable:
    """Return one line as it is read aloud (50 to 150 ms where it holds numbers); MissingDependency without the library."""
    normalize_text = require("kitten_text_processing", install="pip install openechox").normalize_text
    line = ENTITY.sub(lambda found: unescape(found[0]), line)
    line = _fold(line.translate(MARKS))
    line = FORMULA.sub(lambda found: without_latex(found[found.lastindex or 0]), line)
    line = TELEPHONE.sub(_telephone, line)
    line = SERIAL.sub(lambda found: ("number " if found[1] else "") + spelt(found[2]), line)
    line = DIALLED.sub(lambda found: f"{found[1] or found[3]}{spelt(found[2] or found[4])}", line)
    for pattern, words in RULES:
        line = pattern.sub(words, line)
    line = UNIT.sub(_unit, line)
    line = SUM.sub(lambda found: f"{found[2] or found[3]} {MONEY[found[1] or found[4]]}", line)
    line = GREEK.sub(_letter, line)
    line = ABBREVIATION.sub(lambda found: SHORT[found[1]] + ("" if found[2] is None else "."), line)
    line = RULER.sub(_ruler, line)
    parts = [part for sentence in split_sentences(line) for part in _breaths(sentence) if part.strip()]
    line = " ".join(part if PLAIN.fullmatch(part) else normalize_text(part) for part in parts)
    left_out = "".join(dict.fromkeys(c for c in line if not c.isascii() and c not in NEVER_SAID))
    line = " ".join("".join(c if c.isascii() and c.isprintable() else " " for c in line).split())
    line = re.sub(r" (?=[,.;:!?](?:\s|$))| [^\w\s.?!,\"']{2,}(?!\S)", "", line)
    line = re.sub(r",(?:\s?,)+", ",", line)  # between what was left out
    return Speakable(line if any(c.isalnum() for c in line) else "", left_out)


def _breaths(sentence: str) -> list[str]:
    """Return a sentence in parts: the library's time grows faster than the length of what it reads."""
    if len(sentence) <= QUICK:
        return [sentence]
    parts = BREATH.split(sentence)
    return [piece for part in parts for piece in (_short_parts(part, QUICK) if len(part) > LONGEST else [part])]


@lru_cache(maxsize=256)
def words_of(part: str) -> str:
    """Return part of a text with its numbers and signs as words, the blanks around it kept; what says nothing stays as it is.

    Any character beyond ASCII counts as a sign. MissingDependency without the library.
    """
    if not NOT_PLAIN.search(part):
        return part
    found = [read_line(line) for line in IN_A_SUM.sub(_summed, part).splitlines()]
    words = " ".join(filter(None, (line.text for line in found)))
    if left_out := "".join(line.left_out for line in found):
        log.debug("left out, since no English voice says it: %s", left_out)
    return part[: len(part) - len(part.lstrip())] + words + part[len(part.rstrip()) :] if words else part


def _summed(found: re.Match[str]) -> str:
    return f"{found[1]}{SIGN_NAMES[found[2]]} "


def aloud(part: str) -> str:
    """Return part of a text as a voice that spells is given it: numbers and signs as words, acronyms letter by letter."""
    return name_letters(words_of(part))


def _telephone(found: re.Match[str]) -> str:
    """Return a telephone number digit by digit, its groups apart; with too few digits it is none."""
    groups = re.findall(r"[\dX]+", found[0])
    if sum(map(len, groups)) < (9 if found[0].startswith("+") else 7):
        return found[0]
    return ("plus " if found[0].startswith("+") else "") + spelt("-".join(groups))


def _unit(found: re.Match[str]) -> str:
    """Return a unit in words, as one of it behind a lone 1, an article or a hyphen ("a 5 km run")."""
    number, hyphen, unit, per = found.groups()
    words = UNITS[unit] + (f" per {PER.get(per, per)}" if per else "")
    owned = number and (not OWNER.match(number) or NOUN.match(found.string, found.end()))
    return f"{number or ''} {PLURAL.sub('', words, count=1) if owned or hyphen == '-' else words}"


def _letter(found: re.Match[str]) -> str:
    """Return the name of a Greek letter; Unicode spells one of them as nobody else does."""
    name = unicodedata.name(found[0]).split()[-1].lower()
    return f" {'lambda' if name == 'lamda' else name}" + " " * found.string[found.end() :][:1].isalpha()


def _ruler(found: re.Match[str]) -> str:
    """Return a name and its Roman number: Henry VIII is the eighth, Chapter IV is four."""
    name, number = found[1], ROMANS.get(found[2])
    counted = bool({name.capitalize(), name.capitalize().removesuffix("s")} & COUNTED)
    if found[2] == "I":
        number = 1 if counted else None
    elif found[2] in ("IV", "V"):  # a vein, and a letter
        number = number if counted or name in KINGS else None
    if number is None:
        return found[0]
    return f"{name} {number}" if counted else f"{name} the {nth(number)}"


def sentences(text: str, longest: int = LONGEST) -> Iterator[str]:
    """Yield a long text in pieces of whole sentences, at most `longest` characters each; longer ones are cut at a space."""
    for line in text.splitlines():
        piece = ""
        for sentence in split_sentences(line):
            for part in _short_parts(sentence, longest):
                if piece and len(piece) + 1 + len(part) > longest:
                    yield piece
                    piece = ""
                piece = f"{piece} {part}" if piece else part
        if piece:
            yield piece


def _short_parts(sentence: str, longest: int) -> Iterator[str]:
    while len(sentence) > longest:
        cut = max(sentence.rfind(mark, 1, longest) for mark in (", ", "; ", ": "))
        cut = cut + 1 if cut > 0 else sentence.rfind(" ", 1, longest)
        cut = cut if cut > 0 else longest
        yield sentence[:cut]
        sentence = sentence[cut:].lstrip()
    if sentence:
        yield sentence


def _fold(line: str) -> str:
    """Return Latin letters without their accents; everything else as it is."""
    return "".join(c if c.isascii() else LETTERS.get(c) or _plain(c) for c in line)


def _plain(character: str) -> str:
    category = unicodedata.category(character)
    if not category.startswith("L"):
        return {"Mn": "", "Nd": str(unicodedata.digit(character, ""))}.get(category, character)
    letters = "".join(c for c in unicodedata.normalize("NFKD", character) if unicodedata.category(c) != "Mn")
    return letters if letters.isascii() else character
