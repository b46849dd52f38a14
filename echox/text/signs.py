"""What stands for what in written English: units, money, days, abbreviations, Roman numbers, signs; it knows no rule."""

UNITS = {
    "kmh": "kilometers per hour", "kph": "kilometers per hour", "fps": "frames per second", "mpg": "miles per gallon",
    "kWh": "kilowatt hours",
    "kHz": "kilohertz", "KB": "kilobytes", "kB": "kilobytes", "MB": "megabytes", "GB": "gigabytes", "TB": "terabytes",
    "Mb": "megabits", "Gb": "gigabits", "mL": "milliliters", "dL": "deciliters", "L": "liters", "fl oz": "fluid ounces",
    "gal": "gallons", "dB": "decibels", "V": "volts", "mA": "milliamps", "mAh": "milliamp hours", "Ω": "ohms",
    "km": "kilometers", "cm": "centimeters", "mm": "millimeters", "μm": "micrometers", "m": "meters", "hPa": "hectopascals",
    "mmHg": "millimeters of mercury", "kg": "kilograms", "g": "grams", "mg": "milligrams", "μg": "micrograms",
    "lb": "pounds", "oz": "ounces", "min": "minutes", "mins": "minutes", "h": "hours", "hrs": "hours",
    "ms": "milliseconds", "μs": "microseconds",
    "pts of": "pints of", "pt of": "pints of", "qts": "quarts", "qt": "quarts",
    "W": "watts", "kW": "kilowatts", "kts": "knots", "ppm": "parts per million", "bpm": "beats per minute",
    "tsp": "teaspoons", "tbsp": "tablespoons", "cal": "calories", "pts": "points", "mmol": "millimoles", "¢": "cents",
    "cups": "cups", "yrs": "years", "hp": "horsepower", "kt": "knots", "atm": "atmospheres", "Nm": "newton meters",
    "J·s": "joule seconds", "N·m": "newton meters", "kJ": "kilojoules", "kcal": "kilocalories", "mol": "moles",
    "kPa": "kilopascals", "MPa": "megapascals",
}  # fmt: skip
PER = {
    "s": "second",
    "h": "hour",
    "hr": "hour",
    "mo": "month",
    "wk": "week",
    "yr": "year",
    "ft": "foot",
    "in": "inch",
    "mi": "mile",
    "mol": "mole",
} | {unit: UNITS[unit][:-1] for unit in ("min", "L", "dL", "mL", "gal", "kg", "km", "m", "cm", "lb")}
MONEY = {
    "₹": "rupees", "₩": "won", "₽": "rubles", "₺": "lira", "₪": "shekels", "₴": "hryvnias", "₿": "bitcoin", "kr": "kronor",
    "zl": "zlotys", "A$": "Australian dollars", "C$": "Canadian dollars", "NZ$": "New Zealand dollars",
    "HK$": "Hong Kong dollars", "R$": "reais", "AUD": "Australian dollars", "CAD": "Canadian dollars", "CHF": "Swiss francs",
    "INR": "rupees",
}  # fmt: skip
CODES = {"USD": "$", "US$": "$", "EUR": "€", "GBP": "£", "JPY": "¥"}
SIGNED = {"$": "dollar", "£": "pound", "€": "euro", "¥": "yen"}
LARGE = {"m": "million", "b": "billion", "t": "trillion"}
DAYS = {  # and months: words, too, without their full stop, unless a number or another one is behind them
    "Mon": "Monday", "Tues": "Tuesday", "Tue": "Tuesday", "Wed": "Wednesday", "Thurs": "Thursday", "Thu": "Thursday",
    "Fri": "Friday", "Sat": "Saturday", "Sun": "Sunday", "Jan": "January", "Feb": "February", "Mar": "March",
    "Apr": "April", "Jun": "June", "Jul": "July", "Aug": "August", "Sept": "September", "Sep": "September",
    "Oct": "October", "Nov": "November", "Dec": "December",
}  # fmt: skip
MONTHS = "January February March April May June July August September October November December".split()
DECADES = "tens twenties thirties forties fifties sixties seventies eighties nineties".split()
GROWN = {"y": "year", "q": "quarter", "m": "month"}
STREETS = {
    "St": "Street", "Ave": "Avenue", "Rd": "Road", "Blvd": "Boulevard", "Dr": "Drive", "Ln": "Lane", "Ct": "Court",
    "Pl": "Place", "Sq": "Square", "Ter": "Terrace", "Hwy": "Highway", "Pkwy": "Parkway",
}  # fmt: skip
KINGS = frozenset(  # of whom there was a fifth; V is a letter behind other names
    "Alfonso Alexander Baldwin Benedict Carl Charles Christian Clement Edward Ferdinand Frederick George Gustaf Gustav Harald Henry"
    " James John Louis Mohammed Murad Olav Paul Philip Pius Ptolemy Robert Sixtus Urban William".split()
)
SHORT = {
    "approx": "approximately", "Approx": "Approximately", "Prof": "Professor", "Inc": "Incorporated",
    "Corp": "Corporation", "Gen": "General", "Gov": "Governor", "Sen": "Senator", "Capt": "Captain",
    "Rev": "Reverend", "Sr": "Senior", "Jr": "Junior", "Ave": "Avenue", "Blvd": "Boulevard", "Rd": "Road",
    "Rte": "Route", "Dept": "Department", "incl": "including", "pp": "pages", "Nos": "numbers", "Fig": "Figure",
    "Vol": "Volume", "fl": "floor", "Hwy": "Highway", "Apt": "Apartment", "Ste": "Suite",
    "Ext": "Extension", "ext": "extension", "Ch": "Chapter",
}  # fmt: skip
COUNTED = frozenset(  # have numbers behind them; what else does is a ruler or a pope
    "Act Annex Apollo Appendix Article Book Bowl Canto Category Chapter Class Civilization Division Episode Exhibit Factor Fantasy"
    " Figure Generation Godfather Grade Group Lesson Level Mark Model Olympiad Part Phase Psalm Rocky Room Round Rule Schedule"
    " Section Scene Season Series Sonnet Stage Step Symphony Table Tier Title Type Unit Vatican Volume War Windows Zone".split()
)
TENS, ONES = ",X,XX,XXX,XL,L,LX,LXX,LXXX".split(","), ",I,II,III,IV,V,VI,VII,VIII,IX".split(",")
ROMANS = {TENS[number // 10] + ONES[number % 10]: number for number in range(2, 90)}
TAGS = "a|b|blockquote|br|code|div|em|h[1-6]|hr|i|img|li|ol|p|pre|s|span|strong|su[bp]|t[dhr]|table|u|ul"  # of HTML
COOKED = {"c": "cups", "T": "tbsp"}  # with a full stop, behind a number
COMPASS = {"N": "north", "S": "south", "E": "east", "W": "west"}
TIMED = (  # behind a number of m these are minutes; elsewhere they are meters
    "ago call clip commute delay episode lesson meeting movie nap podcast runtime session song talk timer video workout"
).split()
TIMES = "Cook|Cooking time|Cook time|Duration|ETA|Prep|Prep time|Run ?time|Timer|Total time"  # in front of it
OF_MANY = "chapter game lap page part question slide step week".split()  # 3/5 of them
ELEMENTS = (  # in a formula with two kinds of letters: NaCl, KMnO4
    "Ag|Al|Ba|Br|Ca|Cl|Co|Cr|Cu|Fe|Hg|Li|Mg|Mn|Na|Ni|Pb|Si|Sn|Ti|Zn|B|C|F|H|I|K|N|O|P|S"
)
PLAYED = {"W": "wins", "L": "losses", "D": "draws"}
FIGURES = {"fig": "figure", "vol": "volume", "eq": "equation", "Eq": "Equation"}  # with a number
STARRED = {"*": "star", "#": "hash"}  # on a telephone
SIGNS = {
    "№": "No.", "÷": " divided by ", "±": " plus or minus ", "≈": " about ", "≠": " is not ", "≤": " at most ",
    "≥": " at least ", "√": " the square root of ", "∛": " the cube root of ", "∞": " infinity ", "∫": " the integral of ",
    "∈": " in ", "∉": " not in ", "∪": " union ", "∩": " intersection ", "⊂": " is a subset of ", "⊆": " is a subset of ",
    "∀": " for all ", "∃": " there is ", "∧": " and ", "∨": " or ", "¬": " not ", "⇒": " implies ", "⇔": " if and only if ",
    "∅": " the empty set ", "∝": " is proportional to ", "‰": " per thousand ", "↔": " and ", "↦": " to ",
    "⇌": " in equilibrium with ",
}  # fmt: skip
COMPARED = {"<": "≤", ">": "≥", "!": "≠", "=": "="}
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
