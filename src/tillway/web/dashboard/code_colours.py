"""Colours for JSON documents, as the drawing has them: names, texts and numbers."""

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from markupsafe import Markup

_TOKEN: Final = re.compile(
    r'(?P<text>"(?:[^"\\\n]|\\.)*")(?P<names>\s*:)?|(?P<word>\b(?:true|false|null)\b)|(?P<number>-?\b\d+(?:\.\d+)?\b)'
)
COLOURED_MAX: Final = 40_000
"""The longest text that is coloured; a longer one is plain, so that its page stays small."""


def coloured(text: str) -> "Markup":
    """A JSON document with its tokens marked for `dashboard.css`. Every part of it is escaped."""
    from markupsafe import Markup, escape

    if len(text) > COLOURED_MAX:
        return escape(text)
    span, parts, done = Markup('<span class="tok-{}">{}</span>'), list[Markup](), 0
    for found in _TOKEN.finditer(text):
        parts.append(escape(text[done : found.start()]))
        if found["text"] is not None:
            names = found["names"] is not None
            parts += [span.format("k" if names else "s", found["text"]), escape(found["names"] or "")]
        else:
            parts.append(span.format("k" if found["word"] else "n", found[0]))
        done = found.end()
    parts.append(escape(text[done:]))
    return Markup("").join(parts)
