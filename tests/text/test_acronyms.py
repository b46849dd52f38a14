"""Acronyms become the names of their letters, other capitals small ones; what counts kings stays."""

import pytest

from echox.text.acronyms import NAMES, name_letters


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("The FBI, and NASA.", "The eff-bee-eye, and NASA."),
        ("USA's TVs", "you-ess-ay's tee-vees"),
        ("CO2 and MP3s", "see-oh2 and em-pee3s"),
        ("in 120 AD", "in 120 ay-dee"),
        ("Henry VIII and I", "Henry VIII and I"),
        ("AT&T, R&B and U.S. law", "AT&T, R&B and U.S. law"),
        ("PhD, iOS, McDonald", "PhD, iOS, McDonald"),
        ("BREAKING NEWS TODAY from CNN", "Breaking news today from see-en-en"),
        ("I SAID NO!", "I said no!"),
        (
            "NASA AND THE FBI DON'T SAY WHAT I'VE SEEN, A LOT",
            "NASA and the eff-bee-eye don't say what I've seen, a lot",
        ),
        ("DON'T PARK HERE, EVEN NOW", "Don't park here, even now"),
        ("You DON'T ask the FBI'S boss", "You don't ask the eff-bee-eye's boss"),
        ("Mr Lee, Mrs Lee, Dr. Lee", "Mister Lee, Missus Lee, Dr. Lee"),
        ("HENRY VIII WAS A WELL-KNOWN KING", "Henry VIII was a well-known king"),
        ("It is IMPORTANT: DOWNLOAD it", "It is important: download it"),
        ("You must NOT do it. NOTE: SELECT a FROM b", "You must not do it. note: select a from b"),
        ("a pdf, two dvds, the cpu's css", "a pee-dee-eff, two dee-vee-dees, the see-pee-you's see-ess-ess"),
        ("Hmm, shh, the nth, they'll, rhythm and mp3", "Hmm, shh, the nth, they'll, rhythm and em-pee3"),
        ("cats vs dogs, a few km from mr Smith", "cats versus dogs, a few kilometers from mister Smith"),
        ('"FBI", "CIA", USA', '"eff-bee-eye", "see-eye-ay", you-ess-ay'),
        ("NBA NFL MLB, TCP IP UDP", "en-bee-ay en-eff-ell em-ell-bee, tee-see-pee eye-pee you-dee-pee"),  # no headline
        ("ABC NBC CBS, a pdf at 5 kbps", "ay-bee-see en-bee-see see-bee-ess, a pee-dee-eff at 5 kay-bee-pee-ess"),
        ("hmmm, brrr, grr, mhm, the kth, a ch sound", "hmmm, brrr, grr, mhm, the kth, a ch sound"),
        ("Mulholland Dr Los Angeles, I saw Dr Lee", "Mulholland Dr Los Angeles, I saw Doctor Lee"),
        ("Mr and Mrs Smith, I'M HERE", "Mister and Missus Smith, I'm here"),
        ("", ""),
    ],
)
def test_what_is_spelt_as_it_is_said(text, said):
    assert name_letters(text) == said


def test_every_letter_has_a_name_of_its_own():
    assert len(NAMES) == len(set(NAMES.values())) == 26
    assert all(name_letters(name) == name for name in NAMES.values())
