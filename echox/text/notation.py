"""Notations of kitchens, matches, laboratories, mathematics and programs, which are read before all else; it knows no library.

The rules are of the kind of rules.py, which has the common ones.
"""

import re
import unicodedata
from collections.abc import Callable

from echox.text.signs import (
    COMPASS,
    COOKED,
    ELEMENTS,
    FIGURES,
    OF_MANY,
    PLAYED,
    ROMANS,
    STARRED,
    TIMED,
    TIMES,
)

Words = str | Callable[[re.Match[str]], str]
Rule = tuple[re.Pattern[str], Words]


def spelt(code: str) -> str:
    """Return a code digit by digit, what hyphens part as parts; its letters stay together."""
    return ", ".join(" ".join(re.findall(r"[A-Z]+|\d", part)) for part in code.split("-"))


def nth(number: int) -> str:
    """Return an ordinal number: 1st, 12th, 23rd."""
    return f"{number}{ {1: 'st', 2: 'nd', 3: 'rd'}.get(number % 10 if number // 10 % 10 != 1 else 0, 'th') }"


def _century(found: re.Match[str]) -> str:
    """Return the number of a century in Roman numerals as an ordinal one."""
    number = 1 if found[1] == "I" else ROMANS.get(found[1])
    return nth(number) if number else found[0]


def _goals(found: re.Match[str]) -> str:
    """Return a player's minutes in brackets, (Saka 23', 90+4'), as those of a match."""
    return re.sub(r"(?<!\d)(\d{1,3})'", lambda minute: f"{nth(int(minute[1]))} minute", found[0])


def _function(found: re.Match[str]) -> str:
    """Return a function of something: f'(x) as f prime of x."""
    name = re.sub(r"\d+", r" base \g<0>", found[1])
    return f"{name}{['', ' prime', ' double prime'][len(found[2])]} of {found[3]} "


def _formula(found: re.Match[str]) -> str:
    """Return a chemical formula in capitals, which are said one by one: NaCl as NACL, AgNO3 as AGNO 3."""
    return re.sub(r"(\d+)", r" \1 ", found[0].upper()).strip()


def _place(found: re.Match[str]) -> str:
    """Return an angle on the globe: 40°42'46"N in degrees, minutes and seconds north."""
    parts = [f"{found[n]} {name}" for n, name in ((1, "degrees"), (2, "minutes"), (3, "seconds")) if found[n]]
    return " ".join([*parts, COMPASS.get(found[4], "")]).strip()


NOTATION: list[Rule] = [
    (re.compile(pattern), words)
    for pattern, words in (
        (
            r"(\d?)([¼-¾⅐-⅞])",
            lambda found: f"{found[1]} {unicodedata.normalize('NFKC', found[2])}".strip().replace("⁄", "/"),
        ),
        (
            r"\b[\da-f]{8}(?:-[\da-f]{4}){3}-[\da-f]{12}\b"  # a UUID; a hash, in which letters and digits are mixed
            r"|\b(?!\d+e\d+\b|\d{1,2}(?:dec|feb)\d)(?=[a-f]*\d+[a-f]+\d|\d+[a-f]+\d)[\da-f]{7,64}\b",
            lambda found: spelt(found[0].upper()),
        ),
        (
            r"(?<![\w/])#(?=\d*[a-fA-F])(?=[a-fA-F]*\d)([\da-fA-F]{6})\b",  # a colour
            lambda found: f"hash {spelt(found[1].upper())}",
        ),
        (
            r"(?<![\w*#])[*#]{1,2}\d{2,3}#(?!\w)|(?:(?<=[Dd]ial )|(?<=[Pp]ress ))\*\d{2,3}(?![\w*#])",  # a code that is dialled
            lambda found: " ".join(STARRED.get(part) or part for part in re.findall(r"[*#]|\d+", found[0])),
        ),
        (r"\b((?i:select|import)\s|(?i:count)\()\*(?=[\s,;)]|$)", r"\1star"),
        (r"\bP\(([^()|]{1,30})\|([^()|]{1,30})\)", r"P of \1 given \2 "),
        (
            r"(?<![\w|])\|(?=[^|]*\w)(?![^|]*[A-Za-z]{3})([^|\s](?:[^|]{0,30}[^|\s])?)\|(?=[\s,.;:!?)]|$)",
            r"the absolute value of \1",
        ),
        (
            r"(?<![\w.])([fgh]|[OΘΩ]|log(?:2|10)?|ln|exp|sin|cos|tan)('{0,2})\((?!s\)|(?!pi\b)[a-z]{2,}\))([^()]{1,30})\)",
            _function,
        ),
        (r"\b([IVX]{1,6})(?:st|nd|rd|th)?(?=(?:\s?[-–]\s?[IVX]+)?[\s-][Cc]entur(?:y|ies)\b)", _century),
        (r"(?<=\d)\s?\+\s?(\d{1,2})'(?!\w)(?: minute\b)?", r" plus \1 min"),
        (r"\((?=[A-Z][\w.-]+ \d{2,3}(?:'| plus \d+ min))(?![^()]*(?:[x×]|wide|long|tall|high|deep))[^()\"]*\)", _goals),
        (r"\b([Ii]n the \d{1,3})'(?: minute\b|(?=[,.;:!?]|\s*$))", lambda found: f"{found[1]}th minute"),
        (rf"(?<![$£€\d.,])(\d{{1,3}})\s?m(?=\s(?:{'|'.join(TIMED)})\b)", r"\1 min"),
        (rf"(\b(?i:{TIMES})(?: is| of|:)? \d+)\s?m\b", r"\1 min"),
        (
            r"((?<![\w.])\d{1,2}(?:/\d)?\s?)([cT])\.(?=\s(?!(?:per|each|in|an?)\b)[a-z])",
            lambda found: found[1] + COOKED[found[2]],
        ),
        (r"(\d{1,3}(?:\.\d+)?)°\s?(?:(\d{1,2}(?:\.\d+)?)'\s?)?(?:(\d{1,2}(?:\.\d+)?)\"\s?)?([NSEW])\b", _place),
        (r"(?<=\dx)(\d+)\s?m(?=\s[a-z])", r"\1 meter"),  # 4x100m relay
        (r"(?<![\d/])(3[2-9]|[4-9]\d|\d{3})/(\d{1,3})/(\d{1,3})(?![\d/])", r"\1, \2, \3"),  # no date
        (rf"(\b(?i:{'|'.join(OF_MANY)})s? \d+)/(?=\d)", r"\1 of "),
        (
            rf"(?<![\w.-])(?!(?:NaN|TiB)\b)(?=[A-Za-z\d]*[a-z])(?=[A-Z][a-z]?\d*[A-Z])(?:(?:{ELEMENTS})\d*){{2,}}(?!\w)",
            _formula,
        ),
        (r"(\d ?)lb[-·⋅]ft\b", r"\1pound-feet"),
        (r"(?<=\d)([A-Za-z]{1,3})/(?=\d+\1\b)", r"\1, "),
        (r"\bRev\.? (?=\d+:\d)", "Revelation "),
        (r"\bArt\.(?=\s\d)", "Article"),
        (r"(?<=[\d)])\((?=\w{1,3}\))", " ("),
        (r"\b(UTC|GMT)\s?[-−–]\s?(?=\d)", r"\1 minus "),
        (r"\bp\.a\.(?!\s*$)|\bp\.a(?=\.\s*$)", "per annum"),
        (r"\bq(\d{1,2})h\b", r"every \1 hours"),
        (r"(?<!\d)(?<!\d )\bmin\.(?=\s\d)", "minimum"),
        (r"(?<![\w.])(\.{1,2})/(?=\w)", lambda found: "dot " * len(found[1]) + "slash "),
        (r"(?<=\w)@(?=\d[\d.]*(?![\w.]))", " at "),
        (r"(?<=[a-z]{2}) > (?=[A-Z])", ", "),  # of menus
        (r"(?<=\d)\s?★", " stars"),
        (r"(?<=[Α-Ωα-ω])/(?=\w)|(?<=\b[a-z])/(?=[a-z]\s?=)", " over "),
        (r"\b(\d{3})\s?F(?=\s[a-z]|[.,;)]|\s*$)", r"\1°F"),  # of an oven
        (
            r"\b(\d+)W\s?[-–]\s?(\d+)L(?:\s?[-–]\s?(\d+)([DT]))?\b",
            lambda found: ", ".join(
                f"{n} {PLAYED[kind]}" for n, kind in zip(found.groups()[:3], "WLD", strict=True) if n
            ),
        ),
        (
            r"(?<=\b[A-Za-z]) \* (?=\w)|(?<=\d) \* (?=[a-z]\b)|(?<=\b[a-z\d)])[·⋅](?=[\w(])|(?<=\b[a-z)]) [·⋅] (?=[a-z]\b|\()",
            " times ",
        ),
        (r"(?<!\S)~/", "tilde slash "),
        (r"\bd([a-z])/d([a-z])\b", r"d \1 over d \2"),
        (r"(?<=\)) ?/ ?(?=(?:\d+[a-z]?|[a-z])\b)", " over "),
        (r"((?:(?<=\d)|\b)[ijmnxyz])[-−](?=\d(?!\w|\s[a-z]))", r"\1 minus "),
        (r"(?<=\b[a-z\d])\.\.(?=[a-z\d]\b)", " to "),  # a range of a program
        (r"(?<=\d )([NSEW])\. (?=\d+(?:st|nd|rd|th)\b)", lambda found: f"{COMPASS[found[1]]} "),
        (r"([$£€][\d.,]+)\s?(?:mm|MM)\b", r"\1 million"),
        (r"(?<![\w)%°])(?<!\d )[-–](?=\d+(?:\.\d+)?%)", "minus "),
        (r"(?<=[a-z]s) x (?=\d)", " times "),  # sets x 12
        (r"(?<!the )\b(\d{1,3})s(?=\s(?:countdown|delay|interval|pause|rest|timeout|timer)\b)", r"\1 seconds"),
        (r"§§?\s?(?=\d)", "section "),
        (r"\b([A-Z]{3,5})/(?=\d\.\d)", r"\1 "),  # HTTP/1.1
        (r"(?<=\d)[ -]?y/o\b", " year old"),
        (rf"\b({'|'.join(FIGURES)})\.(?=\s\(?(?:\d|[IVX]+\b(?!\s[a-z])))", lambda found: FIGURES[found[1]]),
        (r"\bpop\.(?=\s\d)", "population"),
        (r"\belev\.(?=\s\d)", "elevation"),
        (r"\bmax\.(?=\s(?:\d|of\b))", "maximum"),
        (r"\bavg\.(?=\s(?:\d|of\b))", "average"),
    )
]
