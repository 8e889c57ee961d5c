import html
import sys
import time
import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pipelines.text.clean import clean

# Pieces that a cleaner may trip over, between arbitrary characters (lone surrogates included).
AWKWARD = st.sampled_from(
    [
        "<",
        ">",
        "&",
        ";",
        "<br />",
        "<!--",
        "-->",
        "&lt;",
        "&amp;",
        "&#",
        "&#38;",
        "&nbsp;",
        "/",
        "!",
        "\0",
        "\x85",
        "\u0301",
    ]
)
TEXT = st.lists(AWKWARD | st.text(st.characters(), max_size=5)).map("".join)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ""),
        ("plain", "plain"),
        ("one<br />two<br>three<BR/>four", "one two three four"),
        ("<p class=\"x\">para</p><a href='y?a=1&b=2'>link</a>", "para link"),
        ("<h1>head</h1><o:p></o:p><my-tag>x", "head x"),
        ("<!DOCTYPE html><?xml version='1.0'?>text", "text"),
        ("a<!-- <b>hidden</b>\n -- > -->b<!---->c", "a b c"),
        ("a <!-- never closed", "a <!-- never closed"),
        ("a --> b <!-- c", "a --> b <!-- c"),
    ],
)
def test_markup_becomes_one_space(text: str, expected: str) -> None:
    assert clean(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "I <3 this",
        "a < b",
        "a <b",
        "a<b",
        "5 <= 6 <> 7",
        "<- here ->",
        "<someone@example.com>",
        "<https://example.com/x>",
        "x <y, z < w> v",
        "<" + "a " * 1500 + ">",  # longer than any tag
    ],
)
def test_a_less_than_sign_that_opens_no_tag_stays(text: str) -> None:
    assert clean(text) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("salt &amp; pepper", "salt & pepper"),
        ("it&#39;s &#x27;fine&#X27;", "it's 'fine'"),
        ("caf&eacute;", "caf\u00e9"),
        ("a&nbsp;&nbsp;b", "a b"),
        ("AT&T, R&D; &unknown;", "AT&T, R&D; &unknown;"),
        ("&amp;lt;", "&lt;"),  # once
        ("&lt;br&gt;", "<br>"),  # shown, not obeyed
        ("a&#0;b &#xD800; &#13;c", "a\ufffdb \ufffd c"),
        ("e&#769;", "\u00e9"),
        (f"&#{'9' * 5000};", "\ufffd"),  # more digits than int() takes
    ],
)
def test_entities_are_unescaped_once(text: str, expected: str) -> None:
    assert clean(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("  a \t\r\n b  ", "a b"),
        ("a\u00a0b\u2003c\u3000d\u2028e", "a b c d e"),
        ("a\0b\x07c\x1bd\x7fe\x85f\x9fg", "a b c d e f g"),
        ("\0", ""),
        ("\ufffd \ufeff \u200b", "\ufffd \ufeff \u200b"),
        ("\u0646\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645 \U0001f469\u200d\U0001f52c", None),
        ("e\u0301 \u212b", "\u00e9 \u00c5"),
        ("\ud83d\ude00", "\ufffd\ufffd"),
    ],
)
def test_characters(text: str, expected: str | None) -> None:
    assert clean(text) == (text if expected is None else expected)


@given(TEXT)
@example("\ud800")
@example("&#" + "1" * 4301)
def test_the_result_is_plain_for_any_string(text: str) -> None:
    cleaned = clean(text)
    assert " ".join(cleaned.split()) == cleaned
    assert all(unicodedata.category(character) not in ("Cc", "Cs") for character in cleaned)
    assert unicodedata.is_normalized("NFC", cleaned)
    cleaned.encode("utf-8")


@given(TEXT)
def test_cleaning_twice_is_cleaning_once_where_nothing_spells_out_markup(text: str) -> None:
    cleaned = clean(text)
    if "&" not in cleaned and "<" not in cleaned:
        assert clean(cleaned) == cleaned


@given(TEXT)
def test_words_without_markup_are_kept(text: str) -> None:
    text = text.replace("<", "").replace("&", "")
    kept = [c for c in text if not c.isspace() and unicodedata.category(c) not in ("Cc", "Cs")]
    cleaned = [c for c in clean(text) if c != " "]
    assert _composed(cleaned) == _composed(kept)


def _composed(characters: list[str]) -> str:
    return unicodedata.normalize("NFC", "".join(characters)).replace("\ufffd", "")


@given(st.text(st.characters(exclude_categories=("Cs", "Cc", "Z"))))
def test_escaping_is_undone(text: str) -> None:
    assert clean(html.escape(text)) == unicodedata.normalize("NFC", text)


def test_control_characters_are_the_whole_category() -> None:
    category = {chr(code) for code in range(sys.maxunicode + 1) if unicodedata.category(chr(code)) == "Cc"}
    assert {c for c in map(chr, range(0x100)) if clean(f"a{c}b") == "a b"} == category | {" ", "\u00a0"}


@pytest.mark.parametrize("unit", ["<!--", "<!-- -->", "-->", "<!a ", "<a ", '<a b="', "<", "&", "&#", "&#1"])
def test_time_is_linear_in_hostile_text(unit: str) -> None:
    start = time.process_time()
    clean(unit * (1_000_000 // len(unit)))
    assert time.process_time() - start < 10  # quadratic time would be hours
