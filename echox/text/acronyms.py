"""Acronyms by the names of their letters, "FBI" as "eff-bee-eye"; other capitals as small letters; it knows no model.

A decoder that spells says "FBI" as it would "fib": capitals are no sign to it. On 30 sentences with acronyms the names more than
halve the words that a judge mishears (LOG.md). Words in capitals it has hardly read, and says "OPEN" letter by letter, halfway.
"""

import re

from echox.text.signs import UNITS

CAPITALS = re.compile(r"(?<![\w.&-])(?:I(?=')|[A-Z]{2,})(?:'[A-Z]{1,2}\b)?(?=\d?(?:'s|s)?(?![\w&]))")
LONGEST = 5  # letters of an acronym; what is longer is a word
RUN = re.compile(r"\b(?:I|[A-Z]{2,})(?:'[A-Z]{1,2})?(?:[ '\"!?.:-]+[A-Z]{2,}(?:'[A-Z]{1,2})?){2,}\b")  # no list
LOUD = re.compile(r"(?<![\w.&])(?:(?<!-)[A-Z]|[A-Z]{2,})(?:'[A-Z]{1,2})?(?![\w&])")  # a word of it
KNOWN = "api ceo cpu dna faq gpu id url usb".split()  # in small letters, too
SMALL = re.compile(  # no vowel is in it, or it is a known one
    rf"(?<![\w.&-])(?<!\w')(?:[b-df-hj-np-tv-xz]{{2,5}}|(?:{'|'.join(KNOWN)})s?|Mrs?(?= (?:and Mrs )?[A-Z])|Dr(?= [A-Z]))"
    r"(?=\d?(?:'s)?(?![\w&]))"
)
ROMAN = re.compile(r"[IVX]+")
NAMES = dict(zip(
    "ABCDEFGHIJKLMNOPQRSTUVWXYZ",
    "ay bee see dee ee eff gee aitch eye jay kay ell em en oh pee cue ar ess tee you vee double-you ex why zee".split(),
    strict=True,
))  # fmt: skip
SAID_AS_WORDS = frozenset(
    "AIDS ASAP ASEAN COVID FIFA GIF JPEG LASER NAFTA NASA NATO OPEC PIN RADAR RAM ROM SARS SCUBA SIM SWAT UEFA ZIP".split()
)
STRESSED = frozenset(  # words that are written in capitals to stress them, or since they are code
    (
        "ABOVE ADD AFTER AGAIN ALL ALSO ALTER AND ANY ARE ASK AVOID BACK BAD BELOW BEST BIG BOTH BREAK BUT CAN CASE CHECK COUNT"
        " DID DO DOES DONE DROP EACH EARLY ELSE END EVEN EVER EVERY FALSE FINAL FIRST FIX FOR FREE FROM GET GO GOOD GROUP HAS"
        " HAVE HEAD HELLO HELP HER HERE HIGH HIS HOT HOW IF IN INTO IS JOIN JUST KEEP KEY LAST LEFT LESS LIKE LIMIT LIVE LOOK"
        " LOVE LOW MAIN MAKE MANY MAY MORE MOST MUST MY NEVER NEW NEXT NO NOT NOTE NOW NULL OFF OLD ON ONCE ONE ONLY OPEN OR"
        " ORDER OTHER OUR OUT OVER PART PATCH POINT POST PUT READ REAL RIGHT RUN SALE SAME SAVE SELF SET SHE SHOW SKIP SMALL SO"
        " SOME START STEP STILL STOP SUM TABLE TAKE TEST THAN THAT THE THEIR THEM THEN THERE THESE THEY THING THIS THOSE TIP"
        " TIPS TO TODAY TRUE TRY TWO UNDER UNTIL UP USE USED VALUE VERY WAIT WANT WARN WAS WE WELL WERE WHAT WHEN WHERE WHICH"
        " WHILE WHY WILL WITH WORD WORK WRONG YES YOU YOUR ARMY COOL HAPPY HE HUGE MAJOR MINE MUCH NAVY TEAM THANK TOLD WORLD WOW"
        " YORK AREN COULDN DIDN DOESN DON HASN HAVEN ISN SHOULDN WASN WEREN WON WOULDN"
    ).split()
)


LETTERED = frozenset(  # even where everything is in capitals
    [*map(str.upper, KNOWN), *"ABC AI ATM AWS CIA EU FBI HTML IBM NBA NSA TV UFO UK UN USA".split()]
)
SOUND = re.compile(r"h?m+|mhm|hmph|b?r+|gr+|s?h+|pf+t?|ps+t|tsk|z+|[a-z]th|th|ch|ng|str|st|nd|rd|jr|sr|ms|cwm|thx|pls")
PLURALS = frozenset(f"{one}s" for one in (*KNOWN, "cd", "dj", "dvd", "pc", "pdf", "tv", "vm"))
WRITTEN = UNITS | {
    "dr": "doctor", "ft": "feet", "hr": "hour", "hz": "hertz", "kw": "kilowatts", "lbs": "pounds", "mph": "miles per hour",
    "mr": "mister", "mrs": "missus", "mw": "megawatts", "sgt": "sergeant", "vs": "versus", "wk": "week",
}  # fmt: skip


def name_letters(text: str) -> str:
    """Return `text` with the letters of acronyms as their names, and known and long words in capitals in small letters."""
    if any(_shouts(found[0]) for found in RUN.finditer(text)):
        text = LOUD.sub(_calmed, text)
    return SMALL.sub(_small, CAPITALS.sub(_capitals, text))


def _shouts(run: str) -> bool:
    """Say whether words in capitals, one after the other, are a headline and not acronyms alone."""
    return any(word in STRESSED or len(word) > LONGEST for word in re.findall("[A-Z]+", run))


def _calmed(found: re.Match[str]) -> str:
    """Return a word of a text that is all in capitals."""
    word, mark, rest = found[0].partition("'")
    kept = word == "I" or word in SAID_AS_WORDS | LETTERED or (len(word) > 1 and ROMAN.fullmatch(word))
    return word + mark + rest.lower() if kept else _lowered(found)


def _capitals(found: re.Match[str]) -> str:
    word, mark, rest = found[0].partition("'")
    if word in STRESSED or len(word) > LONGEST:
        return _lowered(found)
    return (word if word in SAID_AS_WORDS or ROMAN.fullmatch(word) else _named(word)) + mark + rest.lower()


def _small(found: re.Match[str]) -> str:
    """Return what is written in small letters without a vowel, "pdfs", as an acronym; a unit or a title in full."""
    word = found[0]
    if word[0].isupper():
        before = found.string[: found.start()].split()[-1:]
        street = word == "Dr" and before and before[0][:1].isupper() and before[0][-1:].isalpha()  # "Mulholland Dr"
        return word if street else WRITTEN[word.lower()].capitalize()
    if word in WRITTEN or SOUND.fullmatch(word):
        return WRITTEN.get(word, word)
    return f"{_named(word[:-1])}s" if word in PLURALS else _named(word)


def _lowered(found: re.Match[str]) -> str:
    """Return a word in small letters, with a capital where the text begins."""
    return found[0].lower() if found.string[: found.start()].strip(" \"'(") else found[0].capitalize()


def _named(word: str) -> str:
    return "-".join(NAMES[letter] for letter in word.upper())
