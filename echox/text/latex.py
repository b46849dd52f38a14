r"""Formulas of LaTeX as one writes them without it; it knows nothing of how they are read.

\frac{-b \pm \sqrt{b^2 - 4ac}}{2a}  -->  minus b plus or minus the square root of b^2 minus 4ac over 2a
"""

import re

FORMULA = re.compile(  # $...$, which holds a word or more than a sum of money, $$...$$, \(...\), \[...\]
    r"\$\$?((?:[A-Za-z\\({|-]|\d(?=[^$]*[\\^=]))(?:[^$]*[^\s$])?)\$\$?(?!\w)|\\\((.{1,400}?)\\\)|\\\[(.{1,400}?)\\\]"
)
DEEPEST = 8  # braces in braces that are read
SAID = {
    "cdot": "times", "times": "times", "div": "divided by", "pm": "plus or minus", "le": "at most", "leq": "at most",
    "ge": "at least", "geq": "at least", "ne": "is not", "neq": "is not", "approx": "about", "infty": "infinity",
    "rightarrow": "to", "sum": "the sum of", "prod": "the product of", "int": "the integral of", "lim": "the limit of",
    "circ": "degrees", "left": "", "right": "", "text": "", "mathrm": "", "mathbf": "", "displaystyle": "", "quad": "",
}  # fmt: skip
_PART = r"(?:\{([^{}]*)\}|(\w))"
BOUNDS = re.compile(rf"\\(sum|prod|int|lim)_{_PART}(?:\^{_PART})?")
INSIDE = [  # of what braces hold, as long as there are some
    (BOUNDS, lambda found: _bounded(found)),
    (re.compile(r"\\[dt]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}"), r" \1 over \2 "),
    (re.compile(r"\\sqrt\s*\{([^{}]*)\}"), r" the square root of \1 "),
    (re.compile(r"\^\{(-?\d+)\}"), r"^\1"),
    (re.compile(r"(?<!frac)(?<!sqrt)(?<!\})\{([^{}]*)\}"), r" \1 "),
]
OUTSIDE = [
    (re.compile(r"\\([A-Za-z]+)"), lambda found: f" {SAID.get(found[1], found[1])} "),
    (re.compile(r"\\\W|[\\_{}]"), " "),
    (re.compile(r"\^\s*degrees"), " degrees"),
    (re.compile(r"\^(?=\s|[A-Za-z])"), " to the power of "),
    (re.compile(r"(?<![\^a-z])\s*-\s*|(?<=\b[a-z])\s*-\s*"), " minus "),
    (re.compile(r"\s*/\s*"), " over "),
]


def without_latex(formula: str) -> str:
    """Return a formula as it is written without LaTeX."""
    for _ in range(DEEPEST):
        for pattern, words in INSIDE:
            formula = pattern.sub(words, formula)
    for pattern, words in OUTSIDE:
        formula = pattern.sub(words, formula)
    return formula


def _bounded(found: re.Match[str]) -> str:
    """Return a sum, a product, an integral or a limit with what it goes over."""
    name, low, high = SAID[found[1]].removesuffix(" of"), found[2] or found[3], found[4] or found[5]
    return f" {name} {'as' if found[1] == 'lim' else 'from'} {low}{f' to {high}' if high else ''} of "
