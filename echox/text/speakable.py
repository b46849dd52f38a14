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
from echox.text.segmenter import split_sentences

log = logging.getLogger(__name__)
LONGEST = 240  # characters said at once
QUICK = 60  # characters that are read at once in a tenth of a second
UNITS = {
    "kmh": "kilometers per hour", "fps": "frames per second", "kWh": "kilowatt hours", "kHz": "kilohertz",
    "KB": "kilobytes", "kB": "kilobytes", "MB": "megabytes", "GB": "gigabytes", "TB": "terabytes",
    "Mb": "megabits", "Gb": "gigabits", "mL": "milliliters", "dB": "decibels", "V": "volts", "mA": "milliamps",
    "km": "kilometers", "mm": "millimeters", "μm": "micrometers", "μg": "micrograms", "m": "meters", "L": "liters",
    "min": "minutes", "h": "hours", "ms": "milliseconds", "μs": "microseconds", "tsp": "teaspoons",
    "tbsp": "tablespoons", "Ω": "ohms", "¢": "cents",
}  # fmt: skip
PER = {"s": "second", "min": "minute", "h": "hour"}
MONEY = {"₹": "rupees", "₩": "won", "₽": "rubles", "₺": "lira", "₪": "shekels", "₴": "hryvnias", "₿": "bitcoin"}
SHORT = {
    "approx.": "approximately", "Prof.": "Professor", "Inc.": "Incorporated", "Gen.": "General",
    "Gov.": "Governor", "Sen.": "Senator", "Capt.": "Captain", "Rev.": "Reverend", "Ave.": "Avenue",
    "Blvd.": "Boulevard", "Mon.": "Monday", "Tues.": "Tuesday", "Wed.": "Wednesday", "Thurs.": "Thursday",
    "Fri.": "Friday", "pp.": "pages", "Nos.": "numbers", "Fig.": "Figure", "Vol.": "Volume", "Ch.": "Chapter",
}  # fmt: skip
COUNTED = frozenset(  # have numbers behind them; what else does is a ruler or a pope
    "Act Annex Apollo Appendix Article Book Bowl Canto Category Chapter Class Civilization Division Episode Exhibit Factor Fantasy"
    " Figure Generation Godfather Grade Group Lesson Level Mark Model Olympiad Part Phase Psalm Rocky Room Round Rule Schedule"
    " Section Scene Season Series Sonnet Stage Step Symphony Table Tier Title Type Unit Vatican Volume War Windows Zone".split()
)
ROMANS = {
    "X" * (number // 10) + ["", "I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX"][number % 10]: number
    for number in range(2, 40)
}
FORMULA = re.compile(  # of LaTeX: $...$, which holds a word or more than a sum of money, $$...$$, \(...\), \[...\]
    r"\$\$?((?:[A-Za-z\\({|-]|\d(?=[^$]*[\\^=]))(?:[^$]*[^\s$])?)\$\$?(?!\w)|\\\((.{1,400}?)\\\)|\\\[(.{1,400}?)\\\]"
)
LATEX = [
    (re.compile(r"\\[dt]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}"), r" \1 over \2 "),
    (re.compile(r"\\sqrt\s*\{([^{}]*)\}"), r" the square root of \1 "),
    (re.compile(r"\\(?:cdot|times)(?![a-z])"), " times "),
    (re.compile(r"\\(?:left|right|text|mathrm)(?![a-z])|\\[^A-Za-z]|[{}]"), ""),
    (re.compile(r"\\|_"), " "),
]
TAGS = "a|b|blockquote|br|code|div|em|h[1-6]|hr|i|img|li|ol|p|pre|s|span|strong|su[bp]|t[dhr]|table|u|ul"  # of HTML
POWER = re.compile(r"(?:(?<=\d)|(?<=\b[a-z]))[⁰¹²³⁴-⁹⁻]+|[²³]")  # other small numbers are those of footnotes
NO_NAME = r"(?!(?:An?|The|This|My|Your|His|Her|Our|Their|If|With|Start|Give)\b)"
RULES = [
    (re.compile(r"(?<![\w\"])\"(?!\s)([^\"]*\d)\"(?!\w)"), r"\1"),  # where a quotation ends there are no inches
    (re.compile(r"!?\[([^\]]*)\]\([^)]*\)"), r"\1"),  # what Markdown marks is not said
    (re.compile(r"^\s*(?:#+|[-*+>•])\s+(?:\[[ xX]\]\s)?"), ""),
    (re.compile(r"^\s*(?:```|~~~)[\w+-]*\s*$"), ""),  # of code
    (re.compile(rf"</?(?:{TAGS})(?:\s[^<>]*=[^<>]*)?\s*/?>"), ""),
    (re.compile(r"(?<![\w.])(\d+(?:\.\d+)?)[eE]\+?(-?\d+)(?!\w|\.\d)"), r"\1 times 10^\2"),
    (re.compile(r"\s?[-=]+>\s?"), " to "),
    (re.compile(r"(?<![\w.,$£€–-])(\d+(?:[.,]\d+)*(?:\s?[-–]\s?\d+(?:[.,]\d+)*)?)\s?([€£])(?!\d)"), r"\2\1"),
    (
        re.compile(r"(?<=[$£€])(\d{1,3}(?:\.\d{3})+|\d+),(\d\d)(?!\d|,\d)"),
        lambda found: f"{found[1].replace('.', '')}.{found[2]}",
    ),
    (re.compile(r"\b([A-G])#(?!\w)"), r"\1 sharp"),
    (re.compile(r"(?<![\w~])~(?=\d)"), "about "),
    (POWER, lambda found: "^" + unicodedata.normalize("NFKC", found[0]).replace("−", "-")),
    (re.compile(r"(?<=\d)\*\*(?=\d)"), "^"),
    (re.compile(r"(?<=\d)\s?\*\s?(?=\d)"), " times "),
    (re.compile(r"[\d.,]{40,}"), lambda found: found[0].replace(",", ", ")),  # a list: no number has so many digits
    (
        re.compile(r"(\d{4}-\d\d-\d\d)T(\d\d:\d\d)(?::\d\d)?(?:\.\d+)?(?:Z|([+-]\d\d):?00)?(?!\w)"),
        lambda found: f"{found[1]} at {found[2]}" + (f", UTC {int(found[3]):+d}" if found[3] else ""),
    ),
    (re.compile(r"(?<!\w)[*_`~]+|[*_`~]+(?!\w)"), ""),
    (re.compile(r"\s*\|\s*"), ", "),  # of a table
    (re.compile(r"\bhttps?://(?:www\.)?|\bwww\.(?=\w)"), ""),
    (re.compile(r"\bNo\.\s?(?=\d)|\bno\.\s(?=\d)|(?<!\w)#(?=\d)"), "number "),
    (re.compile(r"\bp\.\s?(?=\d)"), "page "),
    (re.compile(r"(?<![\w.])ca?\.\s?(?=\d)"), "circa "),
    (re.compile(r"\betc\.(?=,|\s+[a-z])"), "etcetera"),
    (re.compile(r"\bw/(?=\s)"), "with"),
    (re.compile(r"(?<=[A-Z])&(?=[A-Z])"), " and "),
    (re.compile(r"\b([A-Z])/(?=[A-Z]\b)"), r"\1"),  # I/O
    (re.compile(r"(?<=[A-Z]{2})/(?=[A-Z])"), " "),  # TCP/IP
    (re.compile(r"\band/or\b"), "and or"),
    (re.compile(r"(?<![\w/.-])(?:[Vv]ersion )?v\.?(?=\d)(?!\d\d? (?:engine|motor)s?\b)"), "version "),
    (re.compile(r"(?<![\d.])(\d{1,3})\.(?=000\.000(?![\d.]))|(?<=\d\.000)\.(?=000(?![\d.]))"), r"\1,"),  # a million
    (re.compile(r"(?<![\d.])(\d{1,3})\.(\d{1,3})\.(\d{1,3})(?!\d|\.\d)"), r"\1 point \2 point \3"),
    (re.compile(r"(?<![\d/])(24(?=/7\b)|9(?=/11(?![\d/]))|[25-9]0(?=/[1-5]0(?![\d/])))/"), r"\1 "),
    (re.compile(r"(?<![\d/])([2-9]|12)/([248])(?= time\b)"), r"\1 \2"),  # of music
    (re.compile(r"(?<![\d/])(1\d\d)/(?=[4-9]\d(?![\d/]))"), r"\1 over "),  # a blood pressure
    (re.compile(r"\b((?:Boeing|Airbus) A?\d{3})-(?=\d{3}(?!\d))"), r"\1 "),
    (re.compile(r"(?<![\d/])(\d+)/(?=\1(?![\d/]))|(\.\d+)/(?=\d)"), r"\1\2 out of "),  # a mark
    (re.compile(r"(?<![\w/.])([$£€]?\d[\d.,]{0,15}[kKMB]?)/(?=[a-z]{2})"), r"\1 per "),
    (re.compile(rf"\b{NO_NAME}([A-Z]\w+ \d{{1,3}}):(?=\d(?![\d:]))"), r"\1 "),  # a verse
    (re.compile(r"(?<![\d:.])(\d{1,3}):(\d|\d{3,})(?![\d:])"), r"\1 to \2"),  # of two digits it is a time
    (re.compile(r"(\d)'\s?(\d{1,2})(?:\"|'')"), r"\1 foot \2"),
    (re.compile(r"(?<![\d/])(\d/\d)-(?=[a-z])"), r"\1 "),
    (re.compile(r"(?<=\d) (?=000\b)"), ","),
    (re.compile(r"(?<=\d%)\s?[-–]\s?(?=\d)"), " to "),
    (re.compile(r"\bUS(?=\$)"), ""),
    (re.compile(r"(?<![\w)])-(?=[$£€]\d)"), "minus "),
    (re.compile(r"([$£€])(\d+(?:[.,]\d+)*)\s?[-–]\s?[$£€]?(?=\d)"), r"\2 to \1"),
    (re.compile(r"([$£€])([\d.,]{1,16}[kKmMB])\s?[-–]\s?[$£€]?(?=\d)"), r"\1\2 to \1"),
    (re.compile(r"(?<=[$£€])(\d+(?:[.,]\d+)*)m\b"), r"\1 million"),
    (re.compile(r"(?<=[$£€])(\d{1,3})[kK]\b"), r"\1,000"),
    (re.compile(r"(\d\.\d+)M\b"), r"\1 million"),
    (re.compile(r"(\d\.\d+)B\b"), r"\1 billion"),
    (re.compile(r"(?<=\d)\s?(?:−\s?(?=\d)|[-–]\s?(?=[\d.]+\s?=))"), " minus "),
    (re.compile(r"−"), "-"),
    (re.compile(r"(?<=\d)(st|nd|rd|th|x)\s?[-–]\s?(?=\d)"), r"\1 to "),
    (re.compile(r"(?<=\d)(?:x(?=\s[a-z])|\s?×(?!\s?\d)|\s?[x×]\s?(?=[\d.]+\s?=))"), " times "),
    (re.compile(r"(?<=\d)\s?[x×]\s?(?=10\^)"), " times "),
    (re.compile(r"(?<=\d)(?<![^\d.]0)(?<!^0)\s?[x×]\s?(?=\d)"), " by "),
    (re.compile(r"(?<=\d{4})–(?=\d)"), "-"),
    (re.compile(r"(?<![\d/.-])(\d{1,3}(?:\.\d+)?)\s?[-–]\s?(\d{1,4}(?:\.\d+)?)(?![\d/-]|\.\d)"), r"\1 to \2"),
    (re.compile(r"(?<=\d) s(?![\w'])"), " seconds"),
    (re.compile(r"(°[CF])/(?=\d)"), r"\1, "),
    (re.compile(r"(?<=\d) < | < (?=\d)"), " is less than "),
    (re.compile(r"(?<=\d) > | > (?=\d)"), " is more than "),
    (re.compile(r"\s=\s|(?<=\d)=(?=-?\d)"), " equals "),
    (re.compile(r"(\d\s?h \d{1,2})\s?m\b"), r"\1 min"),
    (re.compile(r"\^2(?!\d)"), " squared"),
    (re.compile(r"\^3(?!\d)"), " cubed"),
    (re.compile(r"\^(?=[\d-])"), " to the power of "),
    (re.compile(r"[–—]|(?<=\s)--(?=\s)"), ", "),
]
UNIT = re.compile(rf"((?<![\d.,/])1)?(?<=\d)\s?({'|'.join(map(re.escape, UNITS))})(?:/({'|'.join(PER)}))?(?![\w/'’])")
ENTITY = re.compile(r"&#?\w{1,30};")  # of HTML
PLURAL = re.compile(r"s\b")
ABBREVIATION = re.compile(rf"(?<!\w)({'|'.join(map(re.escape, SHORT))})(?=\s+\w)")
SUM = re.compile(rf"([{''.join(MONEY)}])\s?(\d+(?:[.,]\d+)*(?: [mb]illion)?)")
TELEPHONE = re.compile(
    r"(?<![\w+.-])(?:\+\d{1,3}[ .-]?(?:\(\d{1,4}\)[ .-]?)?\d{1,5}(?:[ .-]?\d{2,5}){1,4}"  # of any country
    r"|(?:1[ .-]?)?\(\d{3}\) ?\d{3}[ .-]\d{4}|\d{3}[ .-]\d{3}[ .-]\d{4}|\d{3}-(?![1-9]\d00)\d{4}(?! [a-z]{3,}s\b)"  # of America
    r"|0(?!00 )\d{2,4}(?: \d{3,4}){1,3})"
    r"(?![\w-]|[.,]\d)"
)
RULER = re.compile(rf"\b{NO_NAME}([A-Z]\w*[a-z]) ([IVX]{{2,}})(?!\w)(?! (?:access|drip|fluid|line)s?\b)")
GREEK = re.compile(r"(?<![^\W\d])[Α-ΡΣ-Ωα-ω](?!\w)")  # a letter of its own, no word
SIGNS = {
    "№": "No.", "÷": " divided by ", "±": " plus or minus ", "≈": " about ", "≠": " is not ", "≤": " at most ",
    "≥": " at least ", "√": " the square root of ", "∞": " infinity ",
}  # fmt: skip
MARKS = str.maketrans(
    {"\u200b": "", "\ufeff": "", "\u2060": ""}  # of no width
    | {"«": '"', "»": '"', "„": '"'}
    | {"‘": "'", "’": "'", "′": "'", "“": '"', "”": '"', "″": '"', "…": "...", "\u00a0": " ", "\u2011": "-"}
    | {"µ": "μ", "\u2126": "Ω"}  # micro and ohm are letters, too
    | {chr(0x2080 + digit): str(digit) for digit in range(10)}
    | SIGNS
)
LETTERS = {
    "ß": "ss", "æ": "ae", "Æ": "Ae", "œ": "oe", "ø": "o", "Ø": "O", "ł": "l", "Ł": "L", "đ": "d", "ð": "th",
    "þ": "th", "Œ": "Oe", "Đ": "D", "Ð": "Th", "Þ": "Th", "ı": "i",
}  # fmt: skip
NEVER_SAID = ("\u200d", "\ufe0e", "\ufe0f")  # joiners and variants of emoji: left out with what they belong to
IN_A_SUM = re.compile(r"^( )([-+]) (?=\d)")  # where a part begins: "12 | + 5"
SIGN_NAMES = {"-": "minus", "+": "plus"}
NOT_PLAIN = re.compile(r"[\d$%&@#+=<>^*_`~|/\\]|[^\x00-\x7f]")  # numbers, signs, and what is no ASCII
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
    line = FORMULA.sub(_formula, line)
    line = TELEPHONE.sub(_telephone, line)
    for pattern, words in RULES:
        line = pattern.sub(words, line)
    line = UNIT.sub(_unit, line)
    line = SUM.sub(lambda found: f"{found[2]} {MONEY[found[1]]}", line)
    line = RULER.sub(_ruler, line)
    line = GREEK.sub(_letter, line)
    line = ABBREVIATION.sub(lambda found: SHORT[found[1]], line)
    parts = [part for sentence in split_sentences(line) for part in _breaths(sentence) if part.strip()]
    line = " ".join(part if PLAIN.fullmatch(part) else normalize_text(part) for part in parts)
    left_out = "".join(dict.fromkeys(c for c in line if not c.isascii() and c not in NEVER_SAID))
    line = " ".join("".join(c if c.isascii() and c.isprintable() else " " for c in line).split())
    line = re.sub(r" (?=[,.;:!?](?:\s|$))", "", line)
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


def _formula(found: re.Match[str]) -> str:
    """Return a formula as it is written without LaTeX."""
    formula = found[found.lastindex or 0]
    for pattern, words in LATEX:
        formula = pattern.sub(words, formula)
    return formula


def _telephone(found: re.Match[str]) -> str:
    """Return a telephone number digit by digit, its groups apart; with too few digits it is none."""
    groups = re.findall(r"\d+", found[0])
    if sum(map(len, groups)) < (9 if found[0].startswith("+") else 7):
        return found[0]
    return ("plus " if found[0].startswith("+") else "") + ", ".join(" ".join(group) for group in groups)


def _unit(found: re.Match[str]) -> str:
    """Return a unit in words, as one of it behind a lone 1."""
    words, per = UNITS[found[2]], f" per {PER[found[3]]}" if found[3] else ""
    return (f"1 {PLURAL.sub('', words, count=1)}" if found[1] else f" {words}") + per


def _letter(found: re.Match[str]) -> str:
    """Return the name of a Greek letter; Unicode spells one of them as nobody else does."""
    name = unicodedata.name(found[0]).split()[-1].lower()
    return f" {'lambda' if name == 'lamda' else name}"


def _ruler(found: re.Match[str]) -> str:
    """Return a name and its Roman number: Henry VIII is the eighth, Chapter IV is four."""
    name, number = found[1], ROMANS.get(found[2])
    if number is None:
        return found[0]
    ending = {1: "st", 2: "nd", 3: "rd"}.get(number % 10 if number // 10 != 1 else 0, "th")
    return f"{name} {number}" if {name, name.removesuffix("s")} & COUNTED else f"{name} the {number}{ending}"


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
