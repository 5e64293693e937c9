"""Make the lists of names that the course trains on, from the word lists inside Faker.

    python -m venv /tmp/faker && /tmp/faker/bin/pip install Faker==40.54.0 numpy
    /tmp/faker/bin/python make_names.py

Rewrites base.txt, turkish.txt and icelandic.txt beside this file. Nothing is drawn at random: the
lists are read from Faker's classes, and each is ordered by the SHA-256 of its names. That is a
fixed shuffle which no random-number library can change, so `names.py` may split by position alone.
"""

import hashlib
import importlib
import re
import sys
import unicodedata
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))
from tensorfile import write_whole  # noqa: E402

FAKER = "40.54.0"
BASE = ["en_US", "en_GB", "de_DE", "fr_FR", "es_ES", "it_IT", "nl_NL", "sv_SE", "pl_PL", "en_IE"]
TARGETS = {"turkish": "tr_TR", "icelandic": "is_IS"}
LETTERS = str.maketrans({  # letters that Unicode does not decompose into one of a-z and a mark
    "ß": "ss", "æ": "ae", "œ": "oe", "ø": "o", "ł": "l", "đ": "d", "ð": "d", "þ": "th", "ı": "i",
    "\u02dc": "i",  # Faker's tr_TR holds one damaged name, "N\u02dczamett\u02dcn" (Nizamettin)
})


def fold(name: str) -> str:
    """A name in lower case with the letters a-z, spaces kept; marks and punctuation dropped."""
    decomposed = unicodedata.normalize("NFD", name.lower().translate(LETTERS))
    return re.sub("[^a-z ]", "", decomposed)


def names_of(locale: str) -> set[str]:
    """Folded first and last names of a locale: one word, 2 to 14 letters."""
    provider = importlib.import_module(f"faker.providers.person.{locale}").Provider
    lists = [a for a in dir(provider) if a.startswith(("first_names", "last_names"))
             or a.endswith("_last_names")]
    folded = {fold(name) for a in lists for name in getattr(provider, a)}
    return {name for name in folded if re.fullmatch("[a-z]{2,14}", name)}


def main() -> None:
    import faker
    if faker.VERSION != FAKER:
        raise SystemExit(f"Faker {faker.VERSION} is installed, the lists come from {FAKER}: "
                         f"pip install Faker=={FAKER}")
    lists = {"base": set().union(*map(names_of, BASE))}
    for target, locale in TARGETS.items():
        lists[target] = names_of(locale) - lists["base"]  # what pretraining never saw
    for name, words in lists.items():
        ordered = sorted(words, key=lambda word: hashlib.sha256(word.encode()).digest())
        write_whole(HERE / f"{name}.txt", "\n".join(ordered) + "\n")
        print(f"{name:<10} {len(ordered):>7,} names")


if __name__ == "__main__":
    main()
