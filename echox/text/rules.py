"""What is read aloud otherwise than it is written, as patterns in the order in which they are tried; it knows no library.

Each rule names a way of writing, not an example; what a rule must leave as it is stands in its own pattern.
"""

import re
import unicodedata

from echox.text.notation import NOTATION, Rule, spelt
from echox.text.segmenter import FUNCTION_WORDS
from echox.text.signs import CODES, COMPARED, DAYS, DECADES, GROWN, LARGE, MONTHS, PER, SIGNED, SIGNS, STREETS, TAGS

POWER = re.compile(
    r"(?:(?<=\d)|(?<=\b[a-z])|(?<=\d[spdf]))[⁰¹²³⁴-⁹⁻]+|(?<=[\w)])[²³]"
)  # other small numbers are those of footnotes
DAY = "|".join(DAYS)
DATED = rf"(?:\d{{1,2}}\s)?(?:{'|'.join(MONTHS)})\s(?:\d{{1,2}},?\s)?\d{{4}}"  # 4 July 1934, July 4, 1934, July 1934
NUMBER = r"\d+(?:,\d{3})*(?:\.\d+)?"
PRICE = r"\d[\d,]*(?:\.\d\d(?![\d ]*[mb]illion)|\.\d+(?= [mbt]))?(?: [mbt]r?illion)?"
OWNED = r"\b(?:[Tt]he|[Tt]his|[Mm]y|[Yy]our|[Hh]is|[Oo]ur|[Tt]heir|[Ii]ts|[Ee]very|[Aa]nother) "
NO_NOUN = (  # what stands behind a sum that is no part of "the $45 bill"; verbs end in ed or s
    f"{'|'.join(FUNCTION_WORDS)}|after|again|ago|all|already|also|apiece|back|before|between|both|cash|came|down|due|during|each"
    "|every|found|gave|gets?|got|here|how|instead|just|kept|later|left|less|lost|made|minus|more|now|off|once|only|out|over|paid"
    "|per|plus|sent|since|sold|spent|still|then|there|through|today|tomorrow|tonight|too|took|until|went|what|within|without|worth"
    "|yesterday|[mbt]r?illion"
)
MILLIONS = (
    r"(?!hurdles|sprints|runners|races|laps|across|always)(?:people|men|women|children|[A-Za-z][a-z]{3,}(?<![su])s)\b"
)
BY_DAY = r"\b(?:[Oo]n|[Bb]y|[Dd]ue|[Uu]ntil|[Tt]ill|[Bb]efore|[Aa]fter|[Ss]ince|[Ff]rom) "
HOUSE = r"\b\d+[A-Za-z]? (?:[NSEW]\.? )?(?:[A-Z][a-z]+ ){1,3}|\b\d+(?:st|nd|rd|th) "
ADJUNCT = rf"(?=(?!(?:{NO_NOUN})\b)[a-z]{{3,}}\b(?<!ed)(?<!ly)(?<![^su]s))"
CASH = r"(?=(?:bill|note|coin|ticket|coupon|voucher|stamp|fee|fine)s?\b)"
K_ALONE = r"(?:run|race|walk|TV|monitor|video|resolution)s?\b"  # of a distance, of a screen
HOST = r"localhost|[a-z][\w-]*(?:\.[\w-]+)+|\d+(?:\.\d+){3}|[a-z][\w-]*(?=:\d{2,5}/)"
CAPITAL = re.compile(r"(?<=[a-z])(?=[A-Z\d])")  # or number, where words of a hashtag begin
NO_NAME = r"(?!(?:An?|The|This|My|Your|His|Her|Our|Their|If|With|Start|Give)\b)"


def _large(found: re.Match[str]) -> str:
    """Return an amount with its thousands, millions, billions or trillions written out."""
    sign, number, size = found[1], found[2], found[3][0].lower()
    if size != "k":
        return f"{sign}{number} {LARGE[size]}"
    return f"{sign}{round(float(number.replace(',', '')) * 1000, 2):,.2f}".removesuffix(".00")


def _adjunct(found: re.Match[str]) -> str:
    """Return a sum of money before what it is the price of: "the 45 dollar bill"."""
    whole, _, cents = found[3].partition(".")
    one = SIGNED[found[2]]
    cent = f"{cents} {'pence' if one == 'pound' else 'cent'} " if cents.isdigit() and len(cents) == 2 else ""
    return f"{found[1]}{whole if cent else found[3]} {one} {cent}"


def _date(found: re.Match[str]) -> str:
    """Return a month and a day that are written 10/15, or what was found where they are none."""
    month, day, before = int(found[2]), int(found[3]), found[1].rstrip(" .,")
    before = f"{DAYS[before]}, " if before in DAYS else found[1]
    return f"{before}{MONTHS[month - 1]} {day}" if 0 < month <= 12 and 0 < day <= 31 else found[0]


def _grouped(found: re.Match[str]) -> str:
    """Return a long number with its thousands apart, which would be said digit by digit."""
    return f"{int(found[0]):,}"


def _many(found: re.Match[str]) -> str:
    """Return 10,000s as tens of thousands."""
    zeros = found[1].count("0")
    return ("tens", "hundreds", "thousands", "tens of thousands", "hundreds of thousands", "", "millions")[zeros - 1]


def _per(found: re.Match[str]) -> str:
    """Return a number of things for each of another."""
    return f"{found[1]} per {PER.get(found[2], found[2])}"


def _port(found: re.Match[str]) -> str:
    """Return a host and its port, and the slash of a path behind them."""
    return f"{found[1]} colon {spelt(found[2])}{' slash ' if found[3] else ''}"


RULES: list[Rule] = NOTATION + [
    (re.compile(pattern), words)
    for pattern, words in (
        (r"\b([A-Za-z]):\\+\s?", r"\1 colon backslash "),
        (r"\\(?=[^\w\s\\])", ""),  # of Markdown
        (r"\s?(?<!\\)\\+(?=\w)", " backslash "),
        (r"(\d\s?(?:ft|feet|foot|hrs?|lbs?))\.(?=\s[\dx×])", r"\1"),
        (rf"(?<=\d)-({'|'.join(PER)})\b(?!-(?:\d|one))(?:\.(?=\s[a-z]))?", lambda found: f" {PER[found[1]]}"),
        (r"(?<=\d)'(?=\s(?:tall|wide|long|high|deep)\b)", " feet"),
        (r"\bM\.D\.", "M D"),
        (r"\bsq\.? ?(ft|in|mi|yd|k?m)\b(?:\.(?=,|\s+[a-z]))?", r"sq \1"),
        (r"(?<![\w\"])\"(?!\s)([^\"]*\d)\"(?!\w)", r"\1"),  # where a quotation ends there are no inches
        (r"(?:(\d)in|((?:ft|feet|foot)\.? ?\d{1,2}) in)\b(?:\.(?=,|\s+[a-z]))?", r'\1\2"'),
        (r"(\d)(\s?(?:ft|[cm]?m|[\"']))\s?[x×]\s?(?=\d)", r"\1\2 by "),
        (r"(\b[Aa]n? \d[\d.,]*|(?<!\d)\d/\d\d?)\"(?=\s)", r"\1 inch"),
        (r"(\b[Aa]n? \d[\d.,]*)(?:\s?ft\b\.?|')(?=\s[a-z])", r"\1 foot"),
        (r"(\d\s?[a-z]{1,4})\.(?=[,)]|\s+[a-z])", r"\1"),  # 3 tbsp. of
        (r"!?\[([^\]]*)\]\([^)]*\)", r"\1"),  # what Markdown marks is not said
        (r"\[\^[\w-]+\]:?", ""),
        (r"^\s*(\d{1,2})\)(?=\s)", r"\1."),
        (r"^\s*(?:#+|[-*+>•])\s+(?:\[[ xX]\]\s)?", ""),
        (r"^\s*(?:```|~~~)[\w+-]*\s*$", ""),  # of code
        (rf"</?(?:{TAGS})(?:\s[^<>]*=[^<>]*)?\s*/?>", ""),
        (r"(?<![\w.])(\d+(?:\.\d+)?)[eE]\+?(-?\d{1,3})(?![\w-]|\.\d)", r"\1 times 10^\2"),
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
        (r"(?<![\w~])~(?=[$£€]?\d)", "about "),
        (
            r"(?<=[A-Za-z\d\])])([¹²³⁴-⁹]?)([⁺⁻])(?![⁰¹²³⁴-⁹])",  # of an ion
            lambda found: f" {unicodedata.normalize('NFKC', found[1])} {'plus' if found[2] == '⁺' else 'minus'}",
        ),
        (
            r"(?<!\w)[⁰¹²³⁴-⁹]+(?=[A-Z][a-z]?\b)",
            lambda found: f"{unicodedata.normalize('NFKC', found[0])} ",
        ),  # an isotope
        (r"((?<=\d)|(?<=\d )|/)([ckm]?m|m/s)(?=[23]\b)", r"\1\2^"),  # m2
        (POWER.pattern, lambda found: "^" + unicodedata.normalize("NFKC", found[0]).replace("−", "-")),
        (r"(?:(?<=\d)|(?<=\b[a-z]))\*\*(?=\d)", "^"),
        (r"(?<=\d)\s?\*\s?(?=\d)", " times "),
        (r"[\d.,]{40,}", lambda found: found[0].replace(",", ", ")),  # a list: no number has so many digits
        (
            r"(\d{4}-\d\d-\d\d)T(\d\d:\d\d)(?::\d\d)?(?:\.\d+)?(?:Z|([+-]\d\d):?00)?(?!\w)",
            lambda found: f"{found[1]} at {found[2]}" + (f", UTC {int(found[3]):+d}" if found[3] else ""),
        ),
        (r"(?<!\w)([A-Za-z])_(?=\w\b)", r"\1 "),
        (r"(?<!\w)[*_`~]+|[*_`~]+(?!\w)", ""),
        (r"\s*\|\s*", ", "),  # of a table
        (r"(?<!\S)(?:--(?=[a-z]{2})|-(?=[A-Za-z](?!\w)))", lambda found: "dash " * len(found[0])),
        (r"<((?:https?://|[\w.+-]+@)[^<>\s]+)>", r"\1"),
        (r"\b(?:https?|ftp)://(?:www\.)?|\bwww\.(?=\w)", ""),
        (rf"\b({HOST}):(\d{{2,5}})(?:(/)|(?![\w:]|\.\d))", _port),
        (r"\bNo\.\s?(?=\d)|\bno\.\s(?=\d)|(?<!\w)#(?=\d)", "number "),
        (r"\bp\.\s?(?=\d)", "page "),
        (r"(?<![\w.])ca?\.\s?(?=\d)", "circa "),
        (r"\betc\.(?=,|\s+[a-z])", "etcetera"),
        (r"\bv\.\s(?=[A-Z])", "versus "),
        (r"\b[Ee]st\.\s(?=[12]\d{3}\b)", "established "),
        (r"\bw/(?=\s)", "with"),
        (r"(?<=[A-Z])&(?=[A-Z])|\s?&&\s?", " and "),
        (r"\b([A-Z])/(?=[A-Z]\b)", r"\1"),  # I/O
        (r"(?<=[A-Z]{2})/(?=[A-Z])", " "),  # TCP/IP
        (r"\band ?/ ?or\b", "and or"),
        (
            r"\b(?:y/y|q/q|m/m|YoY|QoQ|MoM)\b",
            lambda found: f"{GROWN[found[0][0].lower()]} on {GROWN[found[0][0].lower()]}",
        ),
        (r"(?<=\b24) / (?=7\b)", " "),
        (r"(?<=\d) / (?=\d)", " divided by "),
        (r"(?<=[\w)\"']) / (?=\w)", ", "),
        (r"(?<=[,;:.?!]) / (?=\w)", " "),
        (r"(?<=[a-zA-Z])/(?=(?:100 ?(?:km|g|m[lL])|\d+ ?(?:h|hrs?|hours|days?|weeks?))\b)", " per "),
        (rf"((?:{DAY}|{'|'.join(dict.fromkeys(DAYS.values()))})\.?,? )(\d\d?)/(\d\d?)(?![\d/])", _date),
        (rf"({BY_DAY})(\d\d?)/(1[3-57-9]|2\d|3[01])(?![\d/])", _date),
        (r"()(?<![\w/])(\d\d?)/(\d\d?)(?= at \d)", _date),
        (r"(?<!\w)([01]\d|2[0-3])h(?=[0-5]\d\b)", r"\1:"),
        (r"(?<=\d)-(alpha|beta|rc)\.?(?=\d)", r" \1 "),
        (r"(?<![\w/.-])(?:[Vv]ersion )?v\.?(?=\d)(?!\d\d? (?:engine|motor)s?\b)", "version "),
        (r"(?<![\d.])(\d{1,3})\.(?=000\.000(?![\d.]))|(?<=\d\.000)\.(?=000(?![\d.]))", r"\1,"),  # a million
        (r"(?<![\d.])(\d{1,3})\.(\d{1,3})\.(\d{1,3})(?!\d|\.\d)", r"\1 point \2 point \3"),
        (r"(?<![\d/])(24(?=/7\b)|9(?=/11(?![\d/]))|[25-9]0(?=/[1-5]0(?![\d/])))/", r"\1 "),
        (r"(?<![\d/])([2-9]|12)/([248])(?= time\b)", r"\1 \2"),  # of music
        (r"(?<![\d/])(1\d\d)/(?=[4-9]\d(?![\d/]))", r"\1 over "),  # a blood pressure
        (r"\b((?:Boeing|Airbus) A?\d{3})-(?=\d{3}(?!\d))", r"\1 "),
        (
            r"(?<![\d/])(\d+)/(?=\1(?![\d/]))|(?<![\d.])(\d+\.\d+|\d\d(?=/100\b))/(?=\d)|(?<![\d/])(\d{3,})/(?=\d{3})",
            r"\1\2\3 out of ",
        ),  # a mark
        (r"(\.\d+)/(?=\d)", r"\1 slash "),
        (r"(?<![\w/.])([$£€]?\d[\d.,]{0,15}[kKMB]?)/([a-z]{2,}|[hm]\b)", _per),
        (rf"\b{NO_NAME}([A-Z]\w+\.? \d{{1,3}}):(?=\d(?![\d:]))", r"\1 "),  # a verse
        (
            r"(?<![\d:.])\d{1,3}(?=(?::\d{1,3})*:\d(?![\d:]))(?::\d{1,3}){2,}",
            lambda found: found[0].replace(":", " to "),
        ),
        (r"(?<![\d:.])(\d{1,3}(?:\.\d+)?):(\d|\d{3,})(?![\d:])", r"\1 to \2"),  # of two digits it is a time
        (r"(\d)'\s?(\d{1,2})(?:\"|'')", r"\1 foot \2"),
        (r"(\d)\"(?=[,;.]|\s*$)", r"\1 inches"),
        (r"((?<![\d/])\d/\d|\d,\d{3})-(?=[a-z])|(?<=\d)-(?=[mb]illion\b)", r"\1 "),
        (r"(?<![\d/.-])(\d+)-(?=\d/\d{1,2}(?![\d/]))", r"\1 "),
        (r"(\d(?:st|nd|rd|th))-(?=[a-z])", r"\1 "),
        (r"\b50-(?=50\b)", "50 "),
        (rf"(\d [a-z]{{3,}})/(day|week|month|year|hour|{'|'.join(PER)})\b", _per),
        (r"\b20([1-9])0s\b", lambda found: f"twenty {DECADES[int(found[1]) - 1]}"),
        (r"(\b[Aa]n? (?:\d?[1-9]|10))s(?=\s[a-z])", r"\1 second"),
        (r"(?<==)(\d+)s\b", r"\1 seconds"),
        (r"(?<=\d)x/(?=[a-z])", " times per "),
        (r"(?<![\w.,])(1(?:,?000){1,2}|10,?000|100,?000|10{1,2}(?=s of\b))s\b", _many),
        (r"([$£€][\d.,]+) ?mil\b\.?(?!\w)", r"\1 million"),
        (rf"(?<![\w.,])(?<!\b[Aa] )({NUMBER})m(?= {MILLIONS})", r"\1 million"),
        (r"(?<=\d) (?=000\b)", ","),
        (r"(?:(?<=\d%)|(?<=°[CF])|(?<=\d[ap]m)|(?<=[ap]\.m\.))\s?[-–]\s?(?=\d)", " to "),
        (r"(?<![\w)])-(?=[$£€]\d)", "minus "),
        (r"([$£€])(\d+(?:[.,]\d+)*)\s?[-–]\s?[$£€]?(?=\d)", r"\2 to \1"),
        (r"([$£€])([\d.,]{1,16}[kKmMB])\s?[-–]\s?[$£€]?(?=\d)", r"\1\2 to \1"),
        (r"(\.\d\d)K\b|(?<![$£€¥,.])\b(\d{3}) K(?=[.,;:)]| and\b| to\b|\s*$)", r"\1\2 kelvin"),
        (
            r"(?<![\w.,/-])(?:[1-9]\d{5,11}(?= (?:people|men|women|children|[a-z]{3,}s)\b)|[1-9]\d{1,3}00000(?!\w|[.,/-]\d))",
            _grouped,
        ),
        (r"(?<![\w.,/-])(?<![A-Z]{2} )([1-9]\d{1,2})(\d00)(?!\w|[.,/-]\d)", r"\1,\2"),  # of five digits is a postcode
        (rf"([$£€¥])({NUMBER})([kKmMbB]|[bmt]n)\b", _large),
        (
            rf"(?<![\w.,])(?<!\ba )(?<!\bA )()(?!3M|401k|[48]k\b)({NUMBER})(k(?! {K_ALONE})|M|(?<=\.\d)[KB]|[bt]n)(?![\w/]|-[a-z])",
            _large,
        ),
        (rf"(\b[Aa]n? (?:[\d.,]+ to )?)([$£€])({PRICE})[ -](?=[a-z])(?![mbt]r?illion)", _adjunct),
        (rf"({OWNED}(?:[\d.,]+ to )?)([$£€])({PRICE})[ -]{ADJUNCT}", _adjunct),
        (rf"()([$£€])({PRICE})[ -]{CASH}", _adjunct),
        (r"(?<=\d)\s?(?:−\s?(?=\d)|[-–]\s?(?=[\d.]+\s?=))", " minus "),
        (r"(?<=\s)−(?=\s)", "minus"),
        (r"−", "-"),
        (r"(?<=\d)(st|nd|rd|th|x(?! ))\s?[-–]\s?(?=\d)", r"\1 to "),
        (
            r"(?<=\d)(?:x(?=\s(?!(?:minus|plus|equals|over)\b)[A-Za-z])|\s?×(?!\s?\d)|\s?[x×]\s?(?=[\d.]+\s?=))",
            " times ",
        ),
        (r"(?<=[x-z)]) [-–] (?=\d)|(?<=\^\d) [-–] (?=\w)", " minus "),
        (r"(?<=\d)\s?[x×]\s?(?=10\^)", " times "),
        (r"(?<=\d)(?<![^\d.]0)(?<!^0)\s?[x×]\s?(?=\d)", " by "),
        (r"(?<![\d/.^-])(\d{1,3}(?:\.\d+)?)\s?[-–]\s?(\d{1,4}(?:\.\d+)?)(?![\d/-]|\.\d)", r"\1 to \2"),
        (r"(\.\d+)s\b|(?<=\d) s(?![\w'])", r"\1 seconds"),
        (r"(°[CF])/", r"\1, "),
        (r"(\b[Aa]n? \d+)°(?=\s[a-z])", r"\1 degree"),
        (
            r"(?<![\d ])(?<!\d )( ?)°([CF])\b",
            lambda found: f"{found[1]}degrees {'Celsius' if found[2] == 'C' else 'Fahrenheit'}",
        ),
        (r"\s?×\s?(?=[\w(])", " times "),
        (r"(?<=\d) < | < (?=\d)|(?<=\w)<(?=\d)|(?<=\b[a-z]) < (?=[a-z]\b)", " is less than "),
        (r"(?<=\d) > | > (?=\d)|(?<=\w)>(?=\d)|(?<=\b[a-z]) > (?=[a-z]\b)", " is more than "),
        (r"(?<=\()-(?=[a-z]\b)", "minus "),
        (r"(?<!\S)([<>])(?=[$£€]?\d)", lambda found: "less than " if found[1] == "<" else "more than "),
        (r"(?<=\d)!(?=\s?[=+*/-])", " factorial"),
        (r"\s?([<>!=])==?\s?(?=[\w(\"'-])", lambda found: SIGNS.get(COMPARED[found[1]], " equals ")),
        (r"\s=\s|(?<=[\w)])=(?=[\w(-])", " equals "),
        (r"(\d\s?h \d{1,2})\s?m\b", r"\1 min"),
        (r"(\^[23])(?=[^\W\d_])", r"\1 "),
        (r"\^2(?!\d)", " squared"),
        (r"\^3(?!\d)", " cubed"),
        (r"\^(?=[\d-])|(?<=[a-zA-Z\d)])\^(?=[a-zA-Z(])", " to the power of "),
        (r"\b(\d{1,2}):(?=\d\d\.\d)|([+-]\d{1,2}):(?=\d\d\b)", r"\1\2 "),  # of a lap, of a time zone
        (r"(?<![\d/])(0\d)/(?=\d\d(?![\d/]))", r"\1 "),  # a month
        (r"(?<=\d)\+(?!\w)", " plus"),
        (r"(?<![\w+])\+(?=\d)", "plus "),
        (r"(?<=\d)\s?[-–]\s?(?=(?:present|now|today)\b)", " to "),
        (r"(?<!\w)'(?:0(?=\d(?![\w'])))", "o "),  # of '09
        (
            rf"({HOUSE})({'|'.join(STREETS)})\b(?:\.(?!\s*$))?(?=,|\s+[a-z\d(]|\s*\.?$)",
            lambda found: found[1] + STREETS[found[2]],
        ),
        (r"(?<=[a-z] )St\.(?=,|\s*$|\s+[a-z(])", "Street"),
        (r"\bWW(?=I{1,2}\b)", "World War "),
        (r"\bWorld War I\b", "World War one"),
        (rf"\b({DAY})\.?\s?[-–]\s?({DAY})\b(?:\.(?!\s*$))?", lambda found: f"{DAYS[found[1]]} to {DAYS[found[2]]}"),
        (rf"\b({DAY})(?:\.(?=,|:|\s*[-–\da-z])|(?<!Sun)(?=,? \d|\)))", lambda found: DAYS[found[1]]),
        (rf"(?<=\b[12]\d{{3}})\s[-–—]\s(?={DATED})|(?<=\b[12]\d{{3}})\s–\s(?=[12]\d{{3}}\b)", " to "),
        (rf"(\b[A-Z]\w*|\d(?:[ap]m)?)–(?={NO_NAME}[A-Z\d])", r"\1 to "),
        (r"[–—]|(?<=\s)--(?=\s)", ", "),
    )
]
