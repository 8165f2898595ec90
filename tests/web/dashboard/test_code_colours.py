"""The colours of JSON in pages: the text stays as it is, and nothing in it is markup."""

import html
import re

import pytest

from tillway.web.dashboard.code_colours import COLOURED_MAX, coloured

DOCUMENT = '{\n  "name": "<script>alert(1)</script> \\" : 7",\n  "amount": -20.5,\n  "paid": true,\n  "none": null\n}'


def test_names_texts_numbers_and_words_have_colours() -> None:
    told = str(coloured(DOCUMENT))
    for token in ('k">&#34;name&#34;<', 'n">-20.5<', 'k">true<', 'k">null<', 'k">&#34;none&#34;<'):
        assert f'<span class="tok-{token}' in told
    assert "<script" not in told and 'tok-n">7' not in told


@pytest.mark.parametrize(
    "text", [DOCUMENT, "", '"', '{"a": "b', "<html>&amp;</html>", "{" * 50, "9" * (COLOURED_MAX + 1)]
)
def test_the_text_is_kept(text: str) -> None:
    assert html.unescape(re.sub(r"</?span[^>]*>", "", str(coloured(text)))) == text
