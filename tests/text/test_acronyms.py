"""Acronyms become the names of their letters; what is said as a word, counts kings or shouts stays."""

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
        ("BREAKING NEWS TODAY from CNN", "BREAKING NEWS TODAY from CNN"),
        ("I SAID NO!", "I SAID NO!"),
        ("You must NOT do it. NOTE: SELECT a FROM b", "You must NOT do it. NOTE: SELECT a FROM b"),
        ('"FBI", "CIA", USA', '"eff-bee-eye", "see-eye-ay", you-ess-ay'),
        ("", ""),
    ],
)
def test_what_is_spelt_as_it_is_said(text, said):
    assert name_letters(text) == said


def test_every_letter_has_a_name_of_its_own():
    assert len(NAMES) == len(set(NAMES.values())) == 26
    assert all(name_letters(name) == name for name in NAMES.values())
