"""Suggestions for mistyped names ("Did you mean …?")."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_SYNONYMS = {
    **dict.fromkeys(("elevation", "height", "altitude", "dtm", "topography"), "dem"),
    **dict.fromkeys(("temperature", "thermal_inertia", "infrared", "ir"), "thermal"),
    **dict.fromkeys(("grey", "grayscale", "greyscale", "panchromatic", "pan"), "gray"),
    **dict.fromkeys(("steepness", "gradient", "inclination"), "slope"),
    **dict.fromkeys(("near_infrared", "b8"), "nir"),
    **dict.fromkeys(("cross_entropy", "crossentropy", "binary_crossentropy", "binary_cross_entropy"), "bce"),
    **dict.fromkeys(("jaccard", "miou"), "iou"),
    **dict.fromkeys(("u-net", "u_net"), "unet"),
    **dict.fromkeys(("dihedral", "8x"), "d4"),
    **dict.fromkeys(("step_size", "alpha"), "learning_rate"),
    **dict.fromkeys(("max_epochs", "num_epochs"), "epochs"),
    **dict.fromkeys(("off", "no"), "none"),
}
"""Names in this package by synonym; a synonym is used only if its name is among the known ones."""


def nearest_name(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that is closest to a mistyped one, None if none is close.

    Tried in this order: synonyms; initials (lr: learning_rate); a unique prefix; the most similar spelling.

    Example:
        >>> nearest_name("lr", ["epochs", "learning_rate"]), nearest_name("DTM", ["dem", "slope"])
        ('learning_rate', 'dem')
    """
    known = list(known)
    word = name.strip().lower().replace("-", "_").replace(" ", "_").replace("+", "plus")
    for candidate in (word, _SYNONYMS.get(word), _SYNONYMS.get(name.lower())):
        if candidate in known:
            return candidate
    initials = [other for other in known if "_" in other and "".join(part[:1] for part in other.split("_")) == word]
    beginning = [other for other in known if len(word) > 1 and other.startswith(word)]
    for found in (initials, beginning):
        if len(found) == 1:
            return found[0]
    lower = {other.lower(): other for other in reversed(known)}
    similar = difflib.get_close_matches(word, lower, 1)
    return lower[similar[0]] if similar else None


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return " Did you mean …?" with the closest known name, to append to a sentence; empty if none is close.

    Example:
        >>> "There is no model 'U-Net'." + did_you_mean("U-Net", ["unet", "segmenter"])
        "There is no model 'U-Net'. Did you mean unet?"
    """
    found = nearest_name(name, known)
    return f" Did you mean {found}?" if found else ""
