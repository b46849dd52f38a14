"""Written English to words: what the library reads right, what our rules mend, what is left out, and pieces of long texts."""

from importlib.util import find_spec

import pytest

from echox.errors import InputError
from echox.text.speakable import PLAIN, QUICK, Speakable, sentences, speakable, words_of

needs_library = pytest.mark.skipif(find_spec("kitten_text_processing") is None, reason="install the package again")
READ = {
    "Curie (7 November 1867 – 4 July 1934), 1867 – 1934, May 5, 1900 - June 6, 1980": "Curie (the seventh of november eighteen"
    " sixty seven to the fourth of july nineteen thirty four), eighteen sixty seven to nineteen thirty four, may fifth, nineteen"
    " hundred to june sixth, nineteen eighty",
    "call 5551230000, account 12340000": "call five five five one two three zero zero zero zero, account one two three four zero"
    " zero zero zero",
    "in 1914 - July 4 was": "in nineteen fourteen - july fourth was",
    "1500000 people, 123456 cars, and 2500000": "one million five hundred thousand people, one hundred twenty three thousand"
    " four hundred and fifty six cars, and two million five hundred thousand",
    "a != 'US' and b == \"x\"": "a is not 'US' and b equals \"x\"",
    "Eq. (7): x = (b² - 4ac) / 2a": "Equation (seven): x equals (b squared minus four ac) over two a",
    "It costs $5.50 or £1,234.56.": "It costs five dollars fifty cents or one thousand two hundred and thirty four pounds"
    " fifty six pence.",
    "On 2024-03-05 at 14:30, Dr. Smith left.": "On march fifth twenty twenty four at fourteen thirty, doctor Smith left.",
    "Meet me at 3:45 pm on Jan. 5th.": "Meet me at three forty five PM on january fifth.",
    "-5°C is 23 °F.": "minus five degrees Celsius is twenty three degrees Fahrenheit.",
    "12.5% of 1,000,000": "twelve point five percent of one million",
    "15 km/h in 20 min": "fifteen kilometers per hour in twenty minutes",
    "60 mph, 5 m/s, 16 GB": "sixty miles per hour, five meters per second, sixteen gigabytes",
    "1 GB in 1 min at 1 km/h, 11 m, 0.1 L, 2 h, 1 h, 20 ms": "one gigabyte in one minute at one kilometer per hour, eleven meters,"
    " zero point one liters, two hours, one hour, twenty milliseconds",
    "£5m, $1.5m or €20k, 50/50": "five million pounds, one point five million dollars or twenty thousand euros, fifty fifty",
    "In 1999 and the 1980s, 3/4 did.": "In nineteen ninety nine and the nineteen eighties, three quarters did.",
    "Mr. Jones, e.g. the 1st and 2nd": "mister Jones, for example the first and second",
    "No. 5, #6 and pp. 10-12": "number five, number six and pages ten to twelve",
    "Call 555-1234.": "Call five five five, one two three four.",
    "AT&T's R&D": "AT and T's R and D",
    "Prof. Lee, 50¢": "Professor Lee, fifty cents",
    "**bold** and [link](http://x.y)": "bold and link",
    "- item one\n\n# Title": "item one\nTitle",
    "https://www.example.com": "example dot com",
    "café — naïve… “Łódź”": 'cafe, naive... "Lodz"',
    "Hello, world. What is this?": "Hello, world. What is this?",
    "Python 3.11.4 and v2.0, version v10": "Python three point eleven point four and version two point zero, version ten",
    "Call (415) 555-2671 or +44 20 7946 0958.": "Call four one five, five five five, two six seven one or plus four four,"
    " two zero, seven nine four six, zero nine five eight.",
    "120/80 in 4/4 time, a v8 engine": "one hundred and twenty over eighty in four four time, a v eight engine",
    "1.000.000 by Boeing 747-400, 10*4": "one million by Boeing seven hundred and forty seven four hundred, ten times four",
    "№ 5, № 6 and Nos. 7-8": "number five, number six and numbers seven to eight",
    "500-1000 people, 1914–1918, 1.5–2.5 m, 1st-3rd": "five hundred to one thousand people, nineteen fourteen to nineteen"
    " eighteen, one point five to two point five meters, first to third",
    "$5-10 million, $1,500/month, US$5, ₹2 million, 2.5B": "five to ten million dollars, one thousand five hundred dollars"
    " per month, five dollars, two million rupees, two point five billion",
    "3x faster, 2x4, 1920×1080, 5 × 3 = 15, 2x + 1 = 5": "three times faster, two by four, nineteen twenty by ten eighty,"
    " five times three equals fifteen, two x plus one equals five",
    "−5, 3 − 1, 3 - 1 = 2, ±5, ≤ 3, 5 < 6, ~5": "minus five, three minus one, three minus one equals two,"
    " plus or minus five, at most three, five is less than six, about five",
    "9/11, 80/20, 10/10 and 4.5/5": "nine eleven, eighty twenty, ten out of ten and four point five out of five",
    "16:9, 1:100, at 5:05, Genesis 1:1": "sixteen to nine, one to one hundred, at five o five, Genesis one one",
    "Henry VIII's wives, Louis XXII, Chapter IV, Elizabeth I, Malcolm X": "Henry the eighth's wives, Louis the twenty second,"
    " Chapter four, Elizabeth I, Malcolm X",
    "5 MB/s, 5 µg, 1 tbsp, 30 s, the 90s, 5'10\", H₂O, 10^6": "five megabytes per second, five micrograms, one tablespoon,"
    " thirty seconds, the nineties, five foot ten, H two O, ten to the power of six",
    "2π, λ and α-helix": "two pi, lambda and alpha-helix",
    "127.0.0.1:8080 and a.c. 50": "one two seven dot zero dot zero dot one colon eight zero eight zero and a.c. fifty",
    "750-1250 units": "seven hundred and fifty to twelve fifty units",
    "555-0100 for 8 000 000 000 people": "five five five, zero one zero zero for eight billion people",
    'He said "I sold 50," and "Oh!" at a 5" pipe; "10".': 'He said "I sold fifty," and "Oh!" at a five inch pipe; ten.',
    "The 1:1 meeting took 1h 30m: 2+3=5.": "The one to one meeting took one hour thirty minutes: two plus three equals five.",
    "If IV access fails, Vatican II, Rocky IV": "If IV access fails, Vatican two, Rocky four",
    "AC/DC, I/O, w/ milk, c. 1500, p. 5, Fig. 3, etc. and so on": "AC DC, IO, with milk, circa fifteen hundred, page five,"
    " Figure three, etcetera and so on",
    "1 000 000 at example.com/v2/foo": "one million at example dot com slash v two slash foo",
    "10² m, 5 cm², x², 10⁻³, 2⁵, 6×10²³, 2**10": "ten squared m, five centimeters squared, x squared, ten to the power of"
    " minus three, two to the power of five, six times ten to the power of twenty three, two to the power of ten",
    "5 mL, 3 dB, 10 mA, 220 V at 100 W Main Street, -$5": "five milliliters, three decibels, ten milliamps, two hundred and twenty"
    " volts at one hundred West Main Street, minus five dollars",
    "2026-01-12T14:30:00Z, １２ at Đà Nẵng": "january twelfth twenty twenty six at fourteen thirty, twelve at Da Nang",
    ",".join(["12.5"] * 12): ", ".join(["twelve point five"] * 12),
    "1e-5, 6.02e23 and 2.5E+4 of 5e": "one times ten to the power of minus five, six point zero two times ten to the power of"
    " twenty three and two point five times ten to the power of four of five e",
    "Fish &amp; chips at &lt; 5&nbsp;euros &#39;now&#39;": "Fish and chips at is less than five euros 'now'",
    "1,50 €, 12,99€ or 1.250,00 €; €1,50, 10-20 € and £1,234": "one euro fifty cents, twelve euros ninety nine cents or one"
    " thousand two hundred and fifty euros; one euro fifty cents, ten to twenty euros and one thousand two hundred and thirty four"
    " pounds",
    "- [ ] todo\n* [x] done\n```python\n<b>bold</b><br /> of <a href='x'>text</a>, x <b and c> y": "todo\ndone\nbold of text, x"
    " <b and c> y",
    "$x^2$ and $E = mc^2$ cost $5 or US$6 and $7.": "x squared and E equals mc squared cost five dollars or six dollars and seven"
    " dollars.",
    r"\(a + b\), $$\frac{1}{2}$$, $2x + 1 = 5$, $\pi \cdot r^2$": "a plus b, one over two, two x plus one equals five, pi times r"
    " squared",
    "F# at 2024-03-05T14:30:00+01:00, 10%-20% -- a -> b": "F sharp at march fifth twenty twenty four at fourteen thirty, UTC plus"
    " one, ten percent to twenty percent, a to b",
    "«Oui» and „Ja“": '"Oui" and "Ja"',
    "Tea and/or milk, a 3/4-mile walk, $5M-10M and 2.5M users": "Tea and or milk, a three quarters mile walk,"
    " five million dollars to ten million dollars and two point five million users",
    "20°C/68°F, 7 > 3, 2^3, 5 cm³": "twenty degrees Celsius, sixty eight degrees Fahrenheit, seven is more than three,"
    " two cubed, five centimeters cubed",
    "100k users, 1.5k stars, 10k-20k fans, 5M downloads by 3M": "one hundred thousand users, one thousand five hundred stars,"
    " ten thousand to twenty thousand fans, five million downloads by three M",
    "$85k, $1.2tn, a $2 million home, a £20 note and 12000 of 50000": "eighty five thousand dollars, one point two trillion"
    " dollars, a two million dollar home, a twenty pound note and twelve thousand of fifty thousand",
    '5ft 10in, a 65" TV, 12ft x 15ft, an 8\' wall, 3.5", and a 5km run': "five feet ten inches, a sixty five inch TV,"
    " twelve feet by fifteen feet, an eight foot wall, three point five inches, and a five kilometer run",
    "On localhost:8080, http://api:5432/x, port 443 of 10.0.0.1/24": "On localhost colon eight zero eight zero, api colon five four"
    " three two slash x, port four four three of one zero dot zero dot zero dot one slash twenty four",
    "#summer and #BeachDay2023; order #AB-12345": "hashtag summer and hashtag Beach Day twenty twenty three; order number AB,"
    " one two three four five",
    "Flight DL1549, FY2024, C6H12O6 and PIN: 4821; dial 911, but call 300 men.": "Flight DL one five four nine, FY two thousand"
    " twenty four, C six H twelve O six and PIN: four eight two one; dial nine one one, but call three hundred men.",
    "5 USD, 10 EUR, EUR 1.234,50, A$20, 30 CAD and 15 zł": "five dollars, ten euros, one thousand two hundred and thirty four euros"
    " fifty cents, twenty Australian dollars, thirty Canadian dollars and fifteen zlotys",
    "3 tbsp. of oil, 4 oz. cheese, 8 fl oz, 90 mg/dL, 4g/day, $3/gal": "three tablespoons of oil, four ounces cheese, eight fluid"
    " ounces, ninety milligrams per deciliter, four grams per day, three dollars per gallon",
    "9.58s, 1:31.447, 373.15K, 1,200+ and 1.618:1": "nine point five eight seconds, one thirty one point four four seven, three"
    " hundred and seventy three point one five kelvin, one thousand two hundred plus and one point six one eight to one",
    "In Jan. the Labor Dept. of Acme Corp., incl. Sun, in Dec.": "In January the Labor Department of Acme Corporation, including"
    " Sun, in Dec.",
    "Mon-Fri, Jan–Mar 2024, Sat 10–14, items A–F, word–word": "Monday to Friday, January to march twenty twenty four, Saturday ten"
    " to fourteen, items A to F, word, word",
    "Henry V, WWI, Part V, Vol. VI, Super Bowl LVIII, size XL": "Henry the fifth, World War one, Part five, Volume six, Super Bowl"
    " fifty eight, size XL",
    "2x - 5, a**2, E=mc, a >= b, πr², 5 → 6, A :-) b": "two x minus five, a squared, E equals mc, a at least b,"
    " pi r squared, five to six, A b",
    "Baker St., near St. James Park, in Aug. '09; UTC+5:30": "Baker Street, near Saint James Park, in August o nine; UTC plus five"
    " thirty",
    "The Earth orbits the Sun. The Sun, 93 miles away": "The Earth orbits the Sun. The Sun, ninety three miles away",
    "My 401k, a 4k TV, a 10k race, a 5k, 10k fans": "My four oh one k, a four k TV, a ten k race, a five k, ten thousand fans",
    "It is 5in. A 12in. ruler": "It is five inches. A twelve inch ruler",
    "He paused–Then left; Mon–Fri; 2pm–4pm; a Earth–Moon trip": "He paused, Then left; Monday to Friday; two PM to four PM;"
    " a Earth to Moon trip",
    "total:100, answer:42": "total:one hundred, answer:forty two",
    "The Book I was reading, Part I of 2": "The Book I was reading, Part one of two",
    "The class I took on World War I, part I of 2": "The class I took on World War one, part I of two",
    "He said -she laughed- no": "He said -she laughed- no",
    "step 120/500 with --verbose -m": "step one hundred and twenty of five hundred with dash dash verbose dash m",
    "A/B tests, N/A": "AB tests, NA",
    "3 pts of cream, 20m people, 10,000s, 100s of fans, the $45 bill, a $5.50 fee, two $20 notes and $1.2345k": "three pints of"
    " cream, twenty million people, tens of thousands, hundreds of fans, the forty five dollar bill, a five dollar fifty"
    " cent fee, two twenty dollar notes and one thousand two hundred and thirty four dollars fifty cents",
    "The $45 I owe, the $2.5-million flat, this $100–$200 range, my $20 back, A $5.2 million": "The forty five dollars I owe,"
    " the two point five million dollar flat, this one hundred to two hundred dollar range, my twenty dollars back, A five"
    " point two million dollars",
    "Add ¼ tsp or 1½ cups, 2-1/2 inch, 3/8\" drill, 5 ft. 10 in. tall, 1,500 sq. ft. of 8' high walls": "Add one quarter"
    " teaspoon or one and a half cups, two and a half inch, three eighths inch drill, five feet ten inches tall, one"
    " thousand five hundred square feet of eight feet high walls",
    "The 100m dash, the 5 km to go, a 5-km run, a 6-ft wall, a 3-in-1 tool, 65W at 100 W Main St., 5 kg/m³, 20 m2": "The one"
    " hundred meter dash, the five kilometers to go, a five kilometer run, a six foot wall, a three-in-one tool, sixty five"
    " watts at one hundred West Main Street, five kilograms per meter cubed, twenty meters squared",
    "C:\\Users, \\$5, a\\b, 2) two[^1], <me@x.org>, 1.0-beta.2": "C colon backslash Users, five dollars, a backslash b, two)"
    " two, me at x dot org, one point zero beta two",
    "Due 10/15 at 2:00, Tue 3/4, by 1/20, by 1/3, (Sat), 15h30, 1990–present, the 2010s, est. 1977": "Due october fifteenth at"
    " two o'clock, Tuesday, march fourth, by january twentieth, by one third, (Saturday), fifteen thirty, nineteen ninety"
    " to present, the twenty tens, established nineteen seventy seven",
    "1:2:3, +0.8%, 24 / 7, 10 / 2, PST / EST; and / or, 6 L/100 km, 2x/day, 7 days/wk, €5/h": "one to two to three, plus zero"
    " point eight percent, twenty four seven, ten divided by two, PST, EST; and or, six liters per one hundred kilometers,"
    " two times per day, seven days per week, five euros per hour",
    "SO₄²⁻, Na⁺, ¹⁴C, sin²θ, ΔH − TΔS, x_1, 2^n, 5! = 120, p<0.05 and y>1 in <5": "SO four two minus, Na plus, fourteen C, sin"
    " squared theta, delta H minus T delta S, x one, two to the power of n, five factorial equals one hundred and twenty, p"
    " is less than zero point zero five and y is more than one in less than five",
    "Stage IV, phase III, Plan V, Roe v. Wade, M.D., the 2nd-best, 50-50, 85/100": "Stage four, phase three, Plan V, Roe versus"
    " Wade, M D, the second best, fifty fifty, eighty five out of one hundred",
    "ISBN 978-3-16-148410-0 or 0-8044-2957-X, 62704-1234, 123-45-6789, 1.800.555.0100, 0171/123456": "ISBN nine seven eight,"
    " three, one six, one four eight four one zero, zero or zero, eight zero four four, two nine five seven, X, six two"
    " seven zero four, one two three four, one two three, four five, six seven eight nine, one, eight zero zero, five five"
    " five, zero one zero zero, zero one seven one, one two three four five six",
    "1-2-2024 or 2024-11-30": "january second twenty twenty four or november thirtieth twenty twenty four",
    "12 Baker St, 5th Ave. and 3 Park Ln., $10 mil., up 9% y/y, ~$6, 20°C – 25°C/77°F, in °C, a 90° angle": "twelve Baker"
    " Street, fifth Avenue and three Park Lane, ten million dollars, up nine percent year on year, about six dollars,"
    " twenty degrees Celsius to twenty five degrees Celsius, seventy seven degrees Fahrenheit, in degrees Celsius, a ninety"
    " degree angle",
    "A 10s clip, t=30s, 7 p.m.–9 p.m. ext. 45, ISBN 9780306406157": "A ten second clip, t equals thirty seconds, seven PM to"
    " nine PM extension forty five, ISBN nine seven eight zero three zero six four zero six one five seven",
    "$x = \\frac{-b \\pm \\sqrt{b^2 - 4ac}}{2a}$, $\\int_0^1 x_{2} dx$": "x equals minus b plus or minus the square root of b"
    " squared minus four ac over two a, the integral from zero to one of x two DX",
    "$\\lim_{x \\to \\infty} \\frac{1}{x^{n-1}}$, $90^\\circ$": "the limit as x to infinity of one over x to the power of n"
    " minus one, ninety degrees",
    "2) two": "two. two",
    "8 fl. oz of ink, 10/14 at 2:00, go, / and stay, valid 03/27": "eight fluid ounces of ink, october fourteenth at two"
    " o'clock, go, and stay, valid zero three twenty seven",
    "$10^{-3}$, $f(x)\\,dx$, $a_1/b$": "ten to the power of minus three, f of x DX, a one over b",
    "A 45m video, 15m ago, run time: 90m, a 45 m wall, 15m to go and 20m people": "A forty five minute video, fifteen minutes"
    " ago, run time: ninety minutes, a forty five meter wall, fifteen meters to go and twenty million people",
    "Add 2 c. sugar, 1 c. milk, ½ c. oil and 2 T. butter to 1 (15 oz.) can at 425 F for 8 min.": "Add two cups sugar, one cup"
    " milk, one half cup oil and two tablespoons butter to one (fifteen ounces) can at four hundred and twenty five"
    " degrees Fahrenheit for eight minutes.",
    "SELECT * FROM a; COUNT(*), *one* of 2 and 5 * 4": "SELECT star FROM a; COUNT(star), one of two and five times four",
    "He scored (Saka 23', 67'; Palmer 90+4') in the 45+1' minute, in the 67', and is 6' tall": "He scored (Saka twenty third"
    " minute, sixty seventh minute; Palmer ninety plus four minutes) in the forty five plus one minute, in the sixty"
    " seventh minute, and is six feet tall",
    "12W–3L–2D, 32/8/11": "twelve wins, three losses, two draws, thirty two, eight, eleven",
    "The XXI century, the XIX–XX centuries, Louis XIV": "The twenty first century, the nineteenth to twentieth centuries,"
    " Louis the fourteenth",
    "|x - 3| = 5, P(A|B) = 1 or | a | 3 |": "the absolute value of x minus three equals five, P of A given B equals one or,"
    " a, three,",
    "Dial *67, *#06# or #31#, but #3": "Dial star sixty seven, star hash zero six hash or hash thirty one hash, but number"
    " three",
    "*67 is italic*": "sixty seven is italic",
    "ID 550e8400-e29b-41d4-a716-446655440000, commit 3f2a9bc, #ff5733, 1e10, facade, 20th": "ID five five zero E eight four"
    " zero zero, E two nine B, four one D four, A seven one six, four four six six five five four four zero zero zero"
    " zero, commit three F two A nine BC, hash FF five seven three three, one times ten to the power of ten, facade,"
    " twentieth",
    "O(n log n), f(x), f''(x), log₂(8), log(s), for x(5), 7-6(5)": "O of n log n, f of x, f double prime of x, log base two"
    " of eight, log(s), for x(five), seven to six (five)",
    "4x100m relay, a 3x MVP, 6x − 2, lap 57/58, page 3/4, set 1/2 aside, 3 sets x 12 reps": "four by one hundred meter relay,"
    " a three times MVP, six x minus two, lap fifty seven of fifty eight, page three of four, set one half aside, three"
    " sets times twelve reps",
    "i < n, a * 2, n-1, k-12, 0..9, dy/dx, (n+1)/2, π/2, e^(−x), 25% × 80, a·b, p ⇒ q, x ∈ A": "i is less than n, a times"
    " two, n minus one, k-twelve, zero to nine, d y over d x, (n plus one) over two, pi over two, e to the power of"
    " (minus x), twenty five percent times eighty, a times b, p implies q, x in A",
    "Open Settings > Privacy, x > 5, ./run.sh, ~/a, a@5.4, HTTP/1.1, UTC-4": "Open Settings, Privacy, x is more than five,"
    " dot slash run dot sh, tilde slash a, a at five point four, HTTP one point one, UTC minus four",
    "NaCl, KMnO4, NaN, McCoy, −237 kJ/mol at 298 K and 1 atm, 450hp, 500 lb-ft, 5 N·m, 2p⁶": "NACL, KMNO four, NaN, McCoy,"
    " minus two hundred and thirty seven kilojoules per mole at two hundred and ninety eight kelvin and one atmosphere,"
    " four hundred and fifty horsepower, five hundred pound-feet, five newton meters, two p to the power of six",
    "Rev. 3:20, Rev. Jones, Art. 5(1)(b), § 3.1, vol. II, fig. 2, a fig., eq. (5)": "Revelation three twenty, Reverend Jones,"
    " Article five (one) (b), section three point one, volume two, figure two, a fig., equation (five)",
    "pop. 8M, 3% p.a., 18 y/o": "population eight million, three percent per annum, eighteen year old",
    "A max. of 4 g/24 h q6h, min. 3, 5 min., 40 yrs, 30s rest, the 90s movie, 16GB/512GB, 4.5★": "A maximum of four grams"
    " per twenty four hours every six hours, minimum three, five minutes, forty years, thirty seconds rest, the nineties"
    " movie, sixteen gigabytes, five hundred and twelve gigabytes, four point five stars",
    "40°42'46\"N, 74.0° W, 45 W. 34th St., $950mm, (–40%), 5–10%": "forty degrees forty two minutes forty six seconds north,"
    " seventy four point zero degrees west, forty five west thirty fourth Street, nine hundred fifty million dollars,"
    " (minus forty percent), five to ten percent",
    "5/5/2024, 9/11/2001, 555-1234": "may fifth twenty twenty four, september eleventh two thousand one, five five five,"
    " one two three four",
}


@needs_library
@pytest.mark.parametrize("text", READ)
def test_what_is_written_is_read_as_a_person_would(text):
    assert speakable(text).text == READ[text] and speakable(text).left_out == ""


@needs_library
def test_plain_sentences_are_what_the_library_makes_of_them():
    from kitten_text_processing import normalize_text

    for text in ("The cat sat there, as it did.", "Who is it?", "It's a big red city"):
        assert PLAIN.fullmatch(text) and speakable(text).text == normalize_text(text) == text
    assert not any(
        PLAIN.fullmatch(text) for text in ("In may 5.", "Dr. No", "cats, etc.", "NASA", "a.m", "World War II")
    )


@needs_library
def test_what_no_english_voice_says_is_left_out_and_named_once():
    found = speakable("Hi 😀👍🏽 there 中文 and ❤️ 中.")
    assert (found.text, found.left_out) == ("Hi there and.", "😀👍🏽中文❤")
    assert speakable("English, русский, 日本語, mixed").text == "English, mixed"
    assert speakable("See above.² More.") == Speakable("See above. More.", "²")  # a footnote, no power
    for text in ("😀", "中文。", "?!", "\n"):
        with pytest.raises(InputError, match="nothing that can be said"):
            speakable(text)


@needs_library
@pytest.mark.parametrize(
    ("part", "words"),
    [
        (" is at 8,843 meters", " is at eight thousand eight hundred and forty three meters"),
        (" 100°F (38.7°C). ", " one hundred degrees Fahrenheit (thirty eight point seven degrees Celsius). "),
        ("1. **Paris**\n2. Rome", "one. Paris two. Rome"),
        (" It’s the naïve", " It's the naive"),
        (" see example.org, e.g. notes.txt", " see example dot org, for example notes dot txt"),
        (" I like it.but no", " I like it.but no"),  # no page
        (" Dr. Smith's  dog,", " Dr. Smith's  dog,"),  # without numbers and signs: as it is
        (" 12 + 5", " twelve plus five"),
        (" in the XXI century", " in the twenty first century"),
        (" Henry VIII ", " Henry the eighth "),
        (" + 5, which", " plus five, which"),  # cut in a sum
        ("+ 5 apples", "five apples"),  # a bullet
        (" 10 * 4", " ten times four"),
        (" 3.0 × 10^8", " three point zero times ten to the power of eight"),
        ("about 1/2 meter, 1/2 time", "about one half meter, one half time"),
        ("| a | 3 |", ", a, three,"),
        ("\u200b3", "three"),
        (" ***", " ***"),
        (" 🎉", " 🎉"),
        ("", ""),
    ],
)
def test_a_part_keeps_its_blanks_and_what_says_nothing_stays(part, words):
    assert words_of(part) == words


@needs_library
def test_a_long_sentence_read_in_breaths_is_read_as_in_one(monkeypatch):
    text = "On July 20, 1969, in the 1st of 6 landings, 2 men walked for 2.5 hours, and 21.5 kg of rock, 3 films, and 1 flag."
    breaths = speakable(text)
    monkeypatch.setattr("echox.text.speakable.QUICK", 1000)
    assert breaths == speakable(text) and "july twentieth, nineteen sixty nine, in" in breaths.text


@needs_library
def test_what_has_no_breath_is_read_in_pieces(monkeypatch):
    """The library takes minutes for a line of some hundred numbers at once."""
    monkeypatch.setattr("kitten_text_processing.normalize_text", lambda part: f"{part}|")
    pieces = speakable("9 " * 500).text.split("|")
    assert max(map(len, pieces)) <= QUICK and "".join(pieces).split() == ["9"] * 500


def test_long_texts_come_in_whole_sentences():
    text = "One is here. Two is there!\nA new line? " + "word " * 50 + "end."
    pieces = list(sentences(text, 40))
    assert pieces[:2] == ["One is here. Two is there!", "A new line?"]
    assert all(0 < len(piece) <= 40 for piece in pieces)
    assert " ".join(pieces).split() == text.split()
    assert list(sentences("x" * 95, 40)) == ["x" * 40, "x" * 40, "x" * 15]
    assert list(sentences('He said "Go." Then he left.', 15)) == ['He said "Go."', "Then he left."]
    assert list(sentences("She is at home. Dr. No is not.", 20)) == ["She is at home.", "Dr. No is not."]
    assert list(sentences("")) == []


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (
            "Potassium is <3.5 mmol/L, or <3.",
            "Potassium is less than three point five millimoles per liter, or less than three.",
        ),
        (
            "The $200m movie, 200 m later, a 10m-long rope.",
            "The two hundred million dollar movie, two hundred meters later, a ten meter-long rope.",
        ),
        ("My favourite genre is pop. It makes me happy.", "My favourite genre is pop. It makes me happy."),
        (
            "I ate a fig. It was ripe. Turn it to the max. Then wait.",
            "I ate a fig. It was ripe. Turn it to the max. Then wait.",
        ),
        ("Administer IV antibiotics.", "Administer IV antibiotics."),
        ("In the 1990s later versions came.", "In the nineteen nineties later versions came."),
        ("A phase 2/3 trial.", "A phase two thirds trial."),
        ("*20 years ago, prices rose.", "twenty years ago, prices rose."),
        ("|-5|-3|", ", minus five, minus three,"),
        ("Season 2 · Episode 3", "Season two Episode three"),
        ("n-3 fatty acids, 3 –5%", "n-three fatty acids, three to five percent"),
    ],
)
def test_ordinary_writing_is_no_notation(line, said):
    assert speakable(line).text == said
