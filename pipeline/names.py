"""Names for the sample world, composed from syllables so that tokenisers split them."""

from __future__ import annotations

import random

# fmt: off
_ONSETS = ("b", "br", "d", "dr", "f", "g", "h", "k", "l", "m", "n", "p", "r", "s", "st", "t", "v")
_VOWELS = ("a", "e", "i", "o", "u")
_CODAS = ("", "l", "n", "r", "s")
_ENDS = {
    "city": ("burg", "ton", "mar", "vik", "holm", "stad", "ford", "wick", "lund", "minster"),
    "country": ("land", "stan", "nova", "nia"),
    "continent": ("asia", "erica", "ania"),
    "person": ("sen", "ley", "vane", "wood", "bini", "nescu", "mann", "quist", "more", "gard"),
    "language": ("ish", "ese", "ian", "ic"),
    "river": ("a", "o", "ine"),
}
_COINS = ("crown", "mark", "florin", "thaler", "ducat")
_FIRMS = (
    "Works", "Institute", "Press", "Brothers", "Bank", "Foundry", "Laboratories", "Shipyard",
    "Academy", "Railways", "Mills", "Observatory",
)
_TITLES = (
    (
        "Silent", "Golden", "Broken", "Distant", "Hidden", "Scarlet", "Frozen", "Hollow", "Patient",
        "Restless", "Sleeping", "Wandering", "Bitter", "Burning", "Crooked", "Empty", "Faithful",
    ),
    (
        "Harbour", "Garden", "Mountain", "Mirror", "Winter", "Lantern", "Orchard", "Bridge",
        "Letter", "Stranger", "Clock", "Forest", "Window", "Market", "Voyage", "Tower", "Sparrow",
    ),
)
_COMPASS = ("Port", "New", "Upper", "Lower", "North", "South", "East", "West", "Old", "Great")
WOMEN = (
    "Ada", "Agnes", "Beatrice", "Clara", "Dorothea", "Edith", "Flora", "Greta", "Helena", "Irene",
    "Judith", "Katarina", "Lydia", "Matilda", "Nora", "Olivia", "Petra", "Rosalind", "Sylvia",
    "Vera",
)
MEN = (
    "Albert", "Bernard", "Conrad", "Dominic", "Edmund", "Felix", "Gustav", "Henrik", "Isidor",
    "Jasper", "Kaspar", "Leopold", "Magnus", "Nathan", "Oscar", "Philip", "Rupert", "Stefan",
    "Tobias", "Victor",
)
# fmt: on
_FRONTS = {"person": WOMEN + MEN, "city": _COMPASS}
_SHARED = ("person", "city", "organisation")  # kinds of which two in three share their main word


class Namer:
    """Names that no other thing has. One generator, so the same seed gives the same names."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._stems: set[str] = set()
        self._names: set[str] = set()

    def make(self, kind: str, count: int) -> tuple[str, ...]:
        """`count` names. Of each three, the last two share a word where the kind allows it."""
        names: list[str] = []
        stem = ""
        for i in range(count):
            if kind != "work" and (i % 3 != 2 or kind not in _SHARED):
                stem = self._stem(kind)
            names.append(self._name(kind, stem, shared=i % 3 != 0))
        return tuple(names)

    def _name(self, kind: str, stem: str, shared: bool) -> str:
        name = self._shape(kind, stem, shared)
        while name in self._names:
            again = self._shape(kind, stem, shared)
            name = f"{again} of {self._stem('city')}" if kind == "work" else again
        self._names.add(name)
        return name

    def _shape(self, kind: str, stem: str, shared: bool) -> str:
        draw = self._rng.choice
        if kind == "work":
            return f"The {draw(_TITLES[0])} {draw(_TITLES[1])}"
        if kind == "organisation":
            return f"{stem} {draw(_FIRMS)}"
        if kind == "currency":
            return f"{stem} {draw(_COINS)}"
        if kind == "person" or (kind == "city" and shared):
            return f"{draw(_FRONTS[kind])} {stem}"
        return stem

    def _stem(self, kind: str) -> str:
        """A new word: two syllables and an ending by kind, or more syllables when those run out."""
        draw, tries = self._rng.choice, 0
        while True:
            count = 2 + tries // 8
            parts = (draw(_ONSETS) + draw(_VOWELS) + draw(_CODAS) for _ in range(count))
            word = "".join(parts).capitalize() + draw(_ENDS.get(kind, ("",)))
            if word not in self._stems:
                self._stems.add(word)
                return word
            tries += 1
