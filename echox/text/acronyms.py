"""Acronyms by the names of their letters: "FBI" is said "eff-bee-eye", "NASA" as it stands; it knows no model.

A decoder that spells says "FBI" as it would "fib": capitals are no sign to it. On 30 sentences with acronyms the names more than
halve the words that a judge mishears (LOG.md).
"""

import re

ACRONYM = re.compile(r"(?<![\w.&-])[A-Z]{2,5}(?=\d?(?:'s|s)?(?![\w&]))")
SHOUTED = re.compile(r"\b(?:I|[A-Z]{2,})(?:[ '\"!?.:-]+[A-Z]{2,}){2}\b")  # a headline, no list
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
        " WHILE WHY WILL WITH WORD WORK WRONG YES YOU YOUR AREN COULDN DIDN DOESN DON HASN HAVEN ISN SHOULDN WASN WEREN WON WOULDN"
    ).split()
)


def name_letters(text: str) -> str:
    """Return `text` with the letters of every acronym as their names; where three words in a row are in capitals, as it is."""
    return text if SHOUTED.search(text) else ACRONYM.sub(lambda match: _named(match[0]), text)


def _named(word: str) -> str:
    kept = word in SAID_AS_WORDS or word in STRESSED or ROMAN.fullmatch(word)
    return word if kept else "-".join(NAMES[letter] for letter in word)
