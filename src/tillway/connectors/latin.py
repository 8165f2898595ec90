"""Names for payment files, whose formats have no accents."""

import unicodedata

_LETTERS = str.maketrans(
    {"ß": "ss", "Æ": "AE", "æ": "ae", "Ø": "O", "ø": "o", "Œ": "OE", "œ": "oe", "Ł": "L", "ł": "l", "Đ": "D", "đ": "d"}
)


def without_accents(text: str) -> str:
    """The text with Latin letters as their plain ones; characters of other scripts stay."""
    apart = unicodedata.normalize("NFKD", text.translate(_LETTERS))
    return "".join(character for character in apart if not unicodedata.combining(character))
