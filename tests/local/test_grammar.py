"""Tokens, names, strings and LIKE patterns of Snowflake statements."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_snowml.local.errors import SnowflakeError
from airflow_provider_snowml.local.grammar import (
    Name,
    Reader,
    fold,
    like_to_regex,
    parse_name,
    quote_if_needed,
    resolve_identifiers,
    string_literal,
    unquote_string,
)


@given(st.text())
def test_a_string_literal_reads_back_as_it_was(text):
    reader = Reader(f"SET x = {string_literal(text)} -- end")
    reader.expect("SET")
    assert reader.options() == {"X": text}
    reader.done()


@given(st.text(min_size=1).filter(lambda t: "\0" not in t))
def test_a_quoted_identifier_reads_back_as_it_was(name):
    assert fold(quote_if_needed(name)) == name


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("t", Name(None, None, "T")),
        ('db."My Schema".t', Name("DB", "My Schema", "T")),
        ('"a.b"."c""d"', Name(None, "a.b", 'c"d')),
    ],
)
def test_names(text, name):
    assert parse_name(text) == name


@pytest.mark.parametrize("text", ["", "a b", "a.", "1a", "a.b.c.d", "a;b"])
def test_what_is_no_name(text):
    with pytest.raises(SnowflakeError):
        parse_name(text)


@pytest.mark.parametrize(
    ("literal", "value"),
    [("'it''s'", "it's"), (r"'a\nb\'c\\'", "a\nb'c\\"), ("$$raw \\n 'x'$$", "raw \\n 'x'")],
)
def test_strings(literal, value):
    assert unquote_string(literal) == value


def test_comments_and_file_urls():
    reader = Reader("PUT /* why */ file:///tmp/a.txt @st/x -- to the stage\n OVERWRITE = TRUE;")
    reader.expect("PUT")
    assert reader.next().text == "file:///tmp/a.txt"
    assert reader.next().text == "@st/x"
    assert reader.options() == {"OVERWRITE": "TRUE"}
    reader.done()


def test_what_is_left_over_is_an_error_with_its_place():
    reader = Reader("DROP STAGE s\n  CASCADE")
    reader.expect("DROP", "STAGE")
    reader.name()
    with pytest.raises(SnowflakeError, match="line 2 at position 2 unexpected 'CASCADE'"):
        reader.done()


def test_nested_options():
    reader = Reader("FILE_FORMAT = (TYPE = CSV NULL_IF = ('a', 'b')) FILES = ('x') N = 3")
    assert reader.options() == {
        "FILE_FORMAT": {"TYPE": "CSV", "NULL_IF": ["a", "b"]},
        "FILES": ["x"],
        "N": "3",
    }


def test_identifier_function():
    assert resolve_identifiers("DROP TABLE IDENTIFIER('a.\"b c\"')") == 'DROP TABLE A."b c"'


def test_like():
    assert like_to_regex(r"MY\_M%").fullmatch("my_model")
    assert not like_to_regex(r"MY\_M%").fullmatch("myXmodel")
    assert like_to_regex("a_c").fullmatch("ABC")
