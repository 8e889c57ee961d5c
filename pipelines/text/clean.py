"""Makes the text of a row plain: no markup, no control characters, one space between words."""

import html
import re
import unicodedata

_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)

# An element (`<br />`, `<p class="x">`, `</p>`) or a declaration (`<!DOCTYPE html>`, `<?xml version="1.0"?>`). Prose
# that merely holds a "<" must not vanish: a tag starts with a letter, has no other "<" in it, and is not endless.
_TAG = r"<(?:/?[A-Za-z][A-Za-z0-9:_-]*(?:\s[^<>]{0,2000})?/?|[!?][A-Za-z][^<>]{0,2000})>"
# They often come in pairs: a row of them goes as one, with its spaces. {0,999}: `re` takes memory for each turn.
_TAGS = re.compile(rf"{_TAG}(?: *{_TAG}){{0,999}} *")

# `int`, and so `html.unescape`, may refuse numbers of more than 640 digits; none of them is a character.
_ENDLESS_REFERENCE = re.compile(r"&#[0-9]{641,};?")

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")  # Unicode category Cc, which can never grow
_SPACES = re.compile(r"  +")
_SURROGATE = re.compile(r"[\ud800-\udfff]")


def clean(text: str) -> str:
    r"""Return `text` without markup, in Unicode NFC, with exactly one ASCII space between words and none at the ends.

    In this order: HTML comments and tags become a space; entities are unescaped, once; control characters become a
    space, and lone surrogates, which UTF-8 cannot hold, U+FFFD; runs of any white space become one space; NFC.
    Format characters (zero-width joiners, direction marks) are part of the spelling and stay.

    Tags go before entities, as in a browser: who wrote `&lt;br&gt;` wanted to show `<br>`, and that is what is left.
    So `clean(clean(text))` is `clean(text)` unless the text spells out an entity or a tag by way of another one
    (`&amp;lt;`, `&lt;br&gt;`), or has a tag inside a tag (`<a <b> c>`). A tag ends at the first ">".

    Example:
        >>> clean("Loved it!<br /><br />10/10 &amp; I&#39;d  see it\nagain, <b>really</b> &lt;3")
        "Loved it! 10/10 & I'd see it again, really <3"
    """
    if "<" in text:
        text = _without_markup(text)
    if "&" in text:
        text = html.unescape(_ENDLESS_REFERENCE.sub("\ufffd", text))
    # Printable text has no control character, no surrogate and no white space but " ": most text ends here.
    if not text.isprintable():
        text = _SURROGATE.sub("\ufffd", _CONTROL.sub(" ", text))
        text = " ".join(text.split())
    elif "  " in text:
        text = _SPACES.sub(" ", text)
    return unicodedata.normalize("NFC", text.strip())


def _without_markup(text: str) -> str:
    """Replace comments and tags by spaces, in time linear in the text."""
    closed = text.rfind("-->") + len("-->")  # every comment that opens before here also closes
    return _TAGS.sub(" ", _COMMENT.sub(" ", text[:closed]) + text[closed:])
