"""Written English to words that can be said: numbers, money, dates, times, units and abbreviations; it knows no model.

    text --lines--> fold accents --> our few rules --kitten_text_processing--> words --> what no English voice can say is left out

The library does the work; the rules are what it reads wrong (tests/text/test_speakable.py holds both). `echox say` reads whole
lines so; of a language model's answer only the segments that hold a number, a sign, or a character beyond ASCII (`words_of`).
"""

import logging
import re
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from html import unescape

from echox.errors import InputError, require
from echox.text.acronyms import name_letters
from echox.text.segmenter import split_sentences
from echox.text.signs import (
    CODES,
    COMPARED,
    COUNTED,
    DAYS,
    LARGE,
    LETTERS,
    MARKS,
    MONEY,
    PER,
    ROMANS,
    SHORT,
    SIGNED,
    SIGNS,
    TAGS,
    UNITS,
)

log = logging.getLogger(__name__)
LONGEST = 240  # characters said at once
QUICK = 60  # characters that are read at once in a tenth of a second
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
POWER = re.compile(r"(?:(?<=\d)|(?<=\b[a-z]))[⁰¹²³⁴-⁹⁻]+|(?<=[\w)])[²³]")  # other small numbers are those of footnotes
DAY = "|".join(DAYS)
NUMBER = r"\d+(?:,\d{3})*(?:\.\d+)?"
PRICE = r"\d[\d,]*(?:\.\d+(?= [mbt]))?(?: [mbt]r?illion)?"
K_ALONE = r"(?:run|race|walk|TV|monitor|video|resolution)s?\b"  # of a distance, of a screen
HOST = r"localhost|[a-z][\w-]*(?:\.[\w-]+)+|\d+(?:\.\d+){3}|[a-z][\w-]*(?=:\d{2,5}/)"
NO_NAME = r"(?!(?:An?|The|This|My|Your|His|Her|Our|Their|If|With|Start|Give)\b)"


def _large(found: re.Match[str]) -> str:
    """Return an amount with its thousands, millions, billions or trillions written out."""
    sign, number, size = found[1], found[2], found[3][0].lower()
    return f"{sign}{float(number.replace(',', '')) * 1000:,.0f}" if size == "k" else f"{sign}{number} {LARGE[size]}"


def _port(found: re.Match[str]) -> str:
    """Return a host and its port, and the slash of a path behind them."""
    return f"{found[1]} colon {_spelt(found[2])}{' slash ' if found[3] else ''}"


Words = str | Callable[[re.Match[str]], str]
RULES: list[tuple[re.Pattern[str], Words]] = [
    (re.compile(pattern), words)
    for pattern, words in (
        (r"(?<![\w\"])\"(?!\s)([^\"]*\d)\"(?!\w)", r"\1"),  # where a quotation ends there are no inches
        (r"(?:(\d)in|((?:ft|feet|foot)\.? ?\d{1,2}) in)\b(?:\.(?=,|\s+[a-z]))?", r'\1\2"'),
        (r"(\d)(\s?(?:ft|[cm]?m|[\"']))\s?[x×]\s?(?=\d)", r"\1\2 by "),
        (r"(\b[Aa]n? \d[\d.,]*)\"(?=\s)", r"\1 inch"),
        (r"(\b[Aa]n? \d[\d.,]*)(?:\s?ft\b\.?|')(?=\s[a-z])", r"\1 foot"),
        (r"(\d\s?[a-z]{1,4})\.(?=,|\s+[a-z])", r"\1"),  # 3 tbsp. of
        (r"!?\[([^\]]*)\]\([^)]*\)", r"\1"),  # what Markdown marks is not said
        (r"^\s*(?:#+|[-*+>•])\s+(?:\[[ xX]\]\s)?", ""),
        (r"^\s*(?:```|~~~)[\w+-]*\s*$", ""),  # of code
        (rf"</?(?:{TAGS})(?:\s[^<>]*=[^<>]*)?\s*/?>", ""),
        (r"(?<![\w.])(\d+(?:\.\d+)?)[eE]\+?(-?\d+)(?!\w|\.\d)", r"\1 times 10^\2"),
        (r"\s?(?:[-=]+>|→)\s?", " to "),
        (r"(?<![\w/])#([A-Za-z]\w*)", lambda found: "hashtag " + CAPITAL.sub(" ", found[1])),
        (r"\b(USD|US\$|EUR|GBP|JPY)\s?(?=\d)", lambda found: CODES[found[1]]),
        (r"(?<![\w.,])(\d[\d.,]*)\s?(USD|EUR|GBP|JPY)\b", lambda found: CODES[found[2]] + found[1]),
        (r"(?<![\w.,$£€–-])(\d+(?:[.,]\d+)*(?:\s?[-–]\s?\d+(?:[.,]\d+)*)?)\s?([€£])(?!\d)", r"\2\1"),
        (
            r"(?<=[$£€])(\d{1,3}(?:\.\d{3})+|\d+),(\d\d)(?!\d|,\d)",
            lambda found: f"{found[1].replace('.', '')}.{found[2]}",
        ),
        (r"\b([A-G])#(?!\w)", r"\1 sharp"),
        (r"(?<![\w~])~(?=\d)", "about "),
        (POWER.pattern, lambda found: "^" + unicodedata.normalize("NFKC", found[0]).replace("−", "-")),
        (r"(?:(?<=\d)|(?<=\b[a-z]))\*\*(?=\d)", "^"),
        (r"(?<=\d)\s?\*\s?(?=\d)", " times "),
        (r"[\d.,]{40,}", lambda found: found[0].replace(",", ", ")),  # a list: no number has so many digits
        (
            r"(\d{4}-\d\d-\d\d)T(\d\d:\d\d)(?::\d\d)?(?:\.\d+)?(?:Z|([+-]\d\d):?00)?(?!\w)",
            lambda found: f"{found[1]} at {found[2]}" + (f", UTC {int(found[3]):+d}" if found[3] else ""),
        ),
        (r"(?<!\w)[*_`~]+|[*_`~]+(?!\w)", ""),
        (r"\s*\|\s*", ", "),  # of a table
        (r"(?<!\S)(?:--(?=[a-z]{2})|-(?=[A-Za-z](?!\w)))", lambda found: "dash " * len(found[0])),
        (r"\bhttps?://(?:www\.)?|\bwww\.(?=\w)", ""),
        (rf"\b({HOST}):(\d{{2,5}})(?:(/)|(?![\w:]|\.\d))", _port),
        (r"\bNo\.\s?(?=\d)|\bno\.\s(?=\d)|(?<!\w)#(?=\d)", "number "),
        (r"\bp\.\s?(?=\d)", "page "),
        (r"(?<![\w.])ca?\.\s?(?=\d)", "circa "),
        (r"\betc\.(?=,|\s+[a-z])", "etcetera"),
        (r"\bw/(?=\s)", "with"),
        (r"(?<=[A-Z])&(?=[A-Z])|\s?&&\s?", " and "),
        (r"\b([A-Z])/(?=[A-Z]\b)", r"\1"),  # I/O
        (r"(?<=[A-Z]{2})/(?=[A-Z])", " "),  # TCP/IP
        (r"\band/or\b", "and or"),
        (r"(?<![\w/.-])(?:[Vv]ersion )?v\.?(?=\d)(?!\d\d? (?:engine|motor)s?\b)", "version "),
        (r"(?<![\d.])(\d{1,3})\.(?=000\.000(?![\d.]))|(?<=\d\.000)\.(?=000(?![\d.]))", r"\1,"),  # a million
        (r"(?<![\d.])(\d{1,3})\.(\d{1,3})\.(\d{1,3})(?!\d|\.\d)", r"\1 point \2 point \3"),
        (r"(?<![\d/])(24(?=/7\b)|9(?=/11(?![\d/]))|[25-9]0(?=/[1-5]0(?![\d/])))/", r"\1 "),
        (r"(?<![\d/])([2-9]|12)/([248])(?= time\b)", r"\1 \2"),  # of music
        (r"(?<![\d/])(1\d\d)/(?=[4-9]\d(?![\d/]))", r"\1 over "),  # a blood pressure
        (r"\b((?:Boeing|Airbus) A?\d{3})-(?=\d{3}(?!\d))", r"\1 "),
        (
            r"(?<![\d/])(\d+)/(?=\1(?![\d/]))|(?<![\d.])(\d+\.\d+)/(?=\d)|(?<![\d/])(\d{3,})/(?=\d{3})",
            r"\1\2\3 out of ",
        ),  # a mark
        (r"(\.\d+)/(?=\d)", r"\1 slash "),
        (
            r"(?<![\w/.])([$£€]?\d[\d.,]{0,15}[kKMB]?)/([a-z]{2,})",
            lambda found: f"{found[1]} per {PER.get(found[2], found[2])}",
        ),
        (rf"\b{NO_NAME}([A-Z]\w+\.? \d{{1,3}}):(?=\d(?![\d:]))", r"\1 "),  # a verse
        (r"(?<![\d:.])(\d{1,3}(?:\.\d+)?):(\d|\d{3,})(?![\d:])", r"\1 to \2"),  # of two digits it is a time
        (r"(\d)'\s?(\d{1,2})(?:\"|'')", r"\1 foot \2"),
        (r"(\d)\"(?=[,;.]|\s*$)", r"\1 inches"),
        (r"((?<![\d/])\d/\d|\d,\d{3})-(?=[a-z])", r"\1 "),
        (r"(?<=\d) (?=000\b)", ","),
        (r"(?<=\d%)\s?[-–]\s?(?=\d)", " to "),
        (r"(?<![\w)])-(?=[$£€]\d)", "minus "),
        (r"([$£€])(\d+(?:[.,]\d+)*)\s?[-–]\s?[$£€]?(?=\d)", r"\2 to \1"),
        (r"([$£€])([\d.,]{1,16}[kKmMB])\s?[-–]\s?[$£€]?(?=\d)", r"\1\2 to \1"),
        (r"(\.\d\d)K\b", r"\1 kelvin"),
        (r"(?<![\w.,/-])(?<![A-Z]{2} )([1-9]\d{1,2})(\d00)(?!\w|[.,/-]\d)", r"\1,\2"),  # of five digits is a postcode
        (rf"([$£€¥])({NUMBER})([kKmMbB]|[bmt]n)\b", _large),
        (
            rf"(?<![\w.,])(?<!\ba )(?<!\bA )()(?!3M|401k|[48]k\b)({NUMBER})(k(?! {K_ALONE})|M|(?<=\.\d)[KB]|[bt]n)(?![\w/]|-[a-z])",
            _large,
        ),
        (rf"(\b[Aa]n? )([$£€])({PRICE})[ -](?=[a-z])", lambda found: f"{found[1]}{found[3]} {SIGNED[found[2]]} "),
        (r"(?<=\d)\s?(?:−\s?(?=\d)|[-–]\s?(?=[\d.]+\s?=))", " minus "),
        (r"−", "-"),
        (r"(?<=\d)(st|nd|rd|th|x(?! ))\s?[-–]\s?(?=\d)", r"\1 to "),
        (r"(?<=\d)(?:x(?=\s[a-z])|\s?×(?!\s?\d)|\s?[x×]\s?(?=[\d.]+\s?=))", " times "),
        (r"(?<=[x-z)]) [-–] (?=\d)", " minus "),
        (r"(?<=\d)\s?[x×]\s?(?=10\^)", " times "),
        (r"(?<=\d)(?<![^\d.]0)(?<!^0)\s?[x×]\s?(?=\d)", " by "),
        (r"(?<![\d/.-])(\d{1,3}(?:\.\d+)?)\s?[-–]\s?(\d{1,4}(?:\.\d+)?)(?![\d/-]|\.\d)", r"\1 to \2"),
        (r"(\.\d+)s\b|(?<=\d) s(?![\w'])", r"\1 seconds"),
        (r"(°[CF])/(?=\d)", r"\1, "),
        (r"(?<=\d) < | < (?=\d)", " is less than "),
        (r"(?<=\d) > | > (?=\d)", " is more than "),
        (r"\s?([<>!=])=\s?(?=[\w(-])", lambda found: SIGNS.get(COMPARED[found[1]], " equals ")),
        (r"\s=\s|(?<=[\w)])=(?=[\w(-])", " equals "),
        (r"(\d\s?h \d{1,2})\s?m\b", r"\1 min"),
        (r"\^2(?!\d)", " squared"),
        (r"\^3(?!\d)", " cubed"),
        (r"\^(?=[\d-])", " to the power of "),
        (r"\b(\d{1,2}):(?=\d\d\.\d)|([+-]\d{1,2}):(?=\d\d\b)", r"\1\2 "),  # of a lap, of a time zone
        (r"(?<![\d/])(0\d)/(?=\d\d(?![\d/]))", r"\1 "),  # a month
        (r"(?<=\d)\+(?!\w)", " plus"),
        (r"(?<!\w)'(?:0(?=\d(?![\w'])))", "o "),  # of '09
        (r"(?<=[a-z] )St\.(?=,|\s*$|\s+[a-z(])", "Street"),
        (r"\bWW(?=I{1,2}\b)", "World War "),
        (r"\bWorld War I\b", "World War one"),
        (rf"\b({DAY})\.?\s?[-–]\s?({DAY})\b(?:\.(?!\s*$))?", lambda found: f"{DAYS[found[1]]} to {DAYS[found[2]]}"),
        (rf"\b({DAY})(?:\.(?=,|:|\s*[-–\da-z])|(?<!Sun)(?=,? \d))", lambda found: DAYS[found[1]]),
        (rf"(\b[A-Z]\w*|\d(?:[ap]m)?)–(?={NO_NAME}[A-Z\d])", r"\1 to "),
        (r"[–—]|(?<=\s)--(?=\s)", ", "),
    )
]
AFTER_ONE = "and|diabetes|errors?|of|or"  # of a Part I; in "the part I saw" it is who saw
CAPITAL = re.compile(r"(?<=[a-z])(?=[A-Z\d])")  # or number, where words of a hashtag begin
UNIT = re.compile(
    r"((?<![\d.,/])1|\b[Aa]n? \d[\d.,]*)?(?<=\d)\s?"
    rf"({'|'.join(map(re.escape, UNITS))})(?:/({'|'.join(PER)}|[a-z]{{3,}}))?(?![\w/'’])"
)
ENTITY = re.compile(r"&#?\w{1,30};")  # of HTML
PLURAL = re.compile(r"s\b")
ABBREVIATION = re.compile(rf"(?<!\w)({'|'.join(SHORT)})\.(?=,|\s+[\w$£€]|(\s*$))")
_MONEY, _AMOUNT = "|".join(map(re.escape, MONEY)), r"(\d+(?:[.,]\d+)*(?: [mb]illion)?)"
SUM = re.compile(rf"(?<!\w)({_MONEY})\s?{_AMOUNT}|(?<![\w.,]){_AMOUNT}\s?({_MONEY})(?!\w)")
TELEPHONE = re.compile(
    r"(?<![\w+.-])(?:\+\d{1,3}[ .-]?(?:\(\d{1,4}\)[ .-]?)?\d{1,5}(?:[ .-]?\d{2,5}){1,4}"  # of any country
    r"|(?:1[ .-]?)?\(\d{3}\) ?\d{3}[ .-]\d{4}|\d{3}[ .-]\d{3}[ .-]\d{4}|\d{3}-(?![1-9]\d00)\d{4}(?! [a-z]{3,}s\b)"  # of America
    r"|0(?!00 )\d{2,4}(?: \d{3,4}){1,3})"
    r"(?![\w-]|[.,]\d)"
)
SERIAL = re.compile(  # capitals and at least four digits, which are no year
    r"(?<![\w.-])(#?)(?=[\d-]*[A-Z])(?=(?:[A-Z-]*\d){4})(?=[A-Z\d-]*\d{3})(?!\d+[A-Z]{1,3}\b)"
    r"(?![A-Z]+-?(?:19|20)\d\d\b(?!-))([A-Z\d]+(?:-[A-Z\d]+)*)(?![\w-]|:\d)"
)
DIALLED = re.compile(
    r"\b((?:(?:[Cc]ode|PIN|CVV|[Pp]assword)(?: is|:)?|[Ee]nding in|[Pp]ort|[Ee]xt(?:ension|\.)|[Dd]ial)\s)(\d{3,})(?!\w|[.,]\d)"
    r"|\b((?:[Cc]all|[Rr]ing)\s)(\d{3})(?=\W*$|[.,;!?]| (?:or|if|in|for|now|when|and)\b)"
)
RULER = re.compile(
    rf"\b{NO_NAME}([A-Z]\w*[a-z]) ((?!XL\b)[IVXL]{{2,}}|I(?=\W*$|[,:;)]| (?:{AFTER_ONE})\b)|V(?=\W*$|[,:;)]| [a-z]))"
    r"(?!\w)(?! (?:access|drip|fluid|line)s?\b)"
)
GREEK = re.compile(r"(?<![^\W\d])[Α-ΡΣ-Ωα-ω](?![^\Wa-zA-Z])")  # a letter of its own, no word
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
    line = SERIAL.sub(lambda found: ("number " if found[1] else "") + _spelt(found[2]), line)
    line = DIALLED.sub(lambda found: f"{found[1] or found[3]}{_spelt(found[2] or found[4])}", line)
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
    return ("plus " if found[0].startswith("+") else "") + _spelt("-".join(groups))


def _spelt(code: str) -> str:
    """Return a code digit by digit, what hyphens part as parts; its letters stay together."""
    return ", ".join(" ".join(re.findall(r"[A-Z]+|\d", part)) for part in code.split("-"))


def _unit(found: re.Match[str]) -> str:
    """Return a unit in words, as one of it behind a lone 1 or an article ("a 5 km run")."""
    words, per = UNITS[found[2]], f" per {PER.get(found[3], found[3])}" if found[3] else ""
    return (f"{found[1]} {PLURAL.sub('', words, count=1)}" if found[1] else f" {words}") + per


def _letter(found: re.Match[str]) -> str:
    """Return the name of a Greek letter; Unicode spells one of them as nobody else does."""
    name = unicodedata.name(found[0]).split()[-1].lower()
    return f" {'lambda' if name == 'lamda' else name}" + " " * found.string[found.end() :][:1].isalpha()


def _ruler(found: re.Match[str]) -> str:
    """Return a name and its Roman number: Henry VIII is the eighth, Chapter IV is four."""
    name, number = found[1], ROMANS.get(found[2])
    counted = bool({name, name.removesuffix("s")} & COUNTED)
    if found[2] == "I":
        number = 1 if counted else None
    elif found[2] == "V":
        number = 5
    if number is None:
        return found[0]
    ending = {1: "st", 2: "nd", 3: "rd"}.get(number % 10 if number // 10 != 1 else 0, "th")
    return f"{name} {number}" if counted else f"{name} the {number}{ending}"


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
