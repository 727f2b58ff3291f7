from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_snowml.core.names import (
    Identifier,
    QualifiedName,
    SchemaName,
    StageLocation,
    literal,
    refuse_dollar_quotes,
    refuse_look_alikes,
    refuse_single_quotes,
    value_sql,
)
from airflow_provider_snowml.exceptions import InvalidArgumentError, InvalidNameError, PersonalDatabaseError

DEFAULT = SchemaName.of("DB", "SC")


@pytest.mark.parametrize(
    ("text", "sql"),
    [
        ("churn", "CHURN"),
        ("_a$1", "_A$1"),
        ('"My model"', '"My model"'),
        ('"a""b"', '"a""b"'),
        ('"ORDER"', '"ORDER"'),
    ],
)
def test_identifier_is_resolved_and_requoted(text: str, sql: str) -> None:
    assert Identifier.parse(text).sql == sql


@pytest.mark.parametrize(
    "text",
    ["", "1a", "a b", "a;drop", "a'b", '"', '""', '"a"b"', "a.b", "ä", "a\n", '"a\nb"', "x" * 256, None],
)
def test_no_identifier(text: str) -> None:
    with pytest.raises(InvalidNameError):
        Identifier.parse(text)


def test_quoted_and_unquoted_names_of_one_object_are_equal() -> None:
    assert Identifier.parse("churn") == Identifier.parse('"CHURN"') != Identifier.parse('"churn"')


def test_qualified_name_takes_what_is_missing_from_the_default() -> None:
    assert QualifiedName.parse("m", DEFAULT).sql == "DB.SC.M"
    assert QualifiedName.parse("s.m", DEFAULT).sql == "DB.S.M"
    assert QualifiedName.parse('"x.y".s."m n"').sql == '"x.y".S."m n"'
    with pytest.raises(InvalidNameError, match="not fully qualified"):
        QualifiedName.parse("s.m")


@pytest.mark.parametrize("text", ["a.b.c.d", ".a", "a.", "a..b", "db.sc.m; drop table t", "a.b c"])
def test_no_qualified_name(text: str) -> None:
    with pytest.raises(InvalidNameError):
        QualifiedName.parse(text, DEFAULT)


@pytest.mark.parametrize("text", ["user$me.public.m", '"USER$ME".PUBLIC.M'])
def test_personal_database_is_refused(text: str) -> None:
    with pytest.raises(PersonalDatabaseError, match="personal database"):
        QualifiedName.parse(text)
    with pytest.raises(PersonalDatabaseError):
        SchemaName.of("USER$ME", "PUBLIC")


@pytest.mark.parametrize(
    ("text", "sql"),
    [
        ("@st", "@DB.SC.ST/"),
        ("@st/", "@DB.SC.ST/"),
        ("@s.st/a/b", "@DB.S.ST/a/b/"),
        ("@x.s.st/day=2013-01-01/", "@X.S.ST/day=2013-01-01/"),
        ('@"My stage"/A', '@DB.SC."My stage"/A/'),
    ],
)
def test_stage_location(text: str, sql: str) -> None:
    assert StageLocation.parse(text, DEFAULT).sql == sql


@pytest.mark.parametrize(
    "text",
    [
        "st/a",
        "@",
        "@~/a",
        "@%t/a",
        "@st/../b",
        "@st/a/./b",
        "@st/a b",
        "@st/a'b",
        "@st/a\\b",
        "@st/a;b",
        "@st//a//b",
    ],
)
def test_no_stage_location(text: str) -> None:
    with pytest.raises(InvalidNameError):
        StageLocation.parse(text, DEFAULT)


def test_containment_goes_by_directory_not_by_prefix() -> None:
    scores = StageLocation.parse("@st/scores", DEFAULT)
    assert scores.contains(StageLocation.parse("@st/scores/x", DEFAULT))
    assert not scores.contains(StageLocation.parse("@st/scores_input/x", DEFAULT))
    assert not scores.contains(StageLocation.parse("@other/scores/x", DEFAULT))
    assert not scores.contains(scores.beside("_snowml_input"))
    with pytest.raises(InvalidNameError, match="root of a stage"):
        StageLocation.parse("@st", DEFAULT).beside("_x")


def test_literal_escapes_backslashes_before_quotes() -> None:
    assert literal("a'b\\'c") == r"'a\'b\\\'c'"


def test_values_of_every_kind() -> None:
    values = [None, True, 1, 1.5, Decimal("2.50"), "a'b", date(2013, 6, 1), datetime(2013, 6, 1, 2)]
    assert [value_sql(value) for value in values] == [
        "NULL",
        "TRUE",
        "1",
        "1.5",
        "2.50",
        r"'a\'b'",
        "'2013-06-01'::DATE",
        "'2013-06-01T02:00:00'::TIMESTAMP_NTZ",
    ]
    for odd in ({}, [1], float("nan"), b"x"):
        with pytest.raises(InvalidArgumentError):
            value_sql(odd)


def test_dollar_quotes_are_refused() -> None:
    assert refuse_dollar_quotes("costs $5", what="comment") == "costs $5"
    with pytest.raises(InvalidNameError, match="comment"):
        refuse_dollar_quotes("a $$; DROP", what="comment")
    with pytest.raises(InvalidNameError, match=r"ends in \$"):
        refuse_dollar_quotes("in US$", what="comment")


@pytest.mark.parametrize("name", ["it's", "a\\b"])
def test_what_snowflake_ml_does_not_escape_is_refused(name) -> None:
    refuse_single_quotes("CHURN", 'say "V1" $$ % ;')
    with pytest.raises(InvalidNameError, match="snowflake-ml does not escape"):
        refuse_single_quotes("CHURN", name)


def unescaped(sql: str) -> str | None:
    """What Snowflake makes of a literal; None if it ends early."""
    out, i, body = [], 0, sql[1:-1]
    while i < len(body):
        if body[i] == "'":
            return None
        if body[i] == "\\":
            i += 1
            if i == len(body):
                return None
        out.append(body[i])
        i += 1
    return "".join(out)


@given(st.text(alphabet=st.characters() | st.sampled_from("'\\$\"")))
def test_any_text_survives_as_a_literal(text: str) -> None:
    assert unescaped(literal(text)) == text


@given(st.text(min_size=1, max_size=100))
def test_any_name_that_parses_is_one_token_and_parses_to_itself(text: str) -> None:
    try:
        name = Identifier.parse(text)
    except InvalidNameError:
        return
    assert Identifier.parse(name.sql) == name
    assert Identifier.parse(Identifier.of(name.name).sql) == name


@given(st.text(min_size=1, max_size=60, alphabet=st.characters(blacklist_categories=["Cc", "Cs"])))
def test_any_resolved_name_can_be_written(name: str) -> None:
    assert Identifier.parse(Identifier.of(name).sql).name == name


@given(st.text(max_size=80, alphabet=st.characters() | st.sampled_from("@/.'\\ ;$")))
def test_a_stage_location_never_holds_what_could_end_it(text: str) -> None:
    try:
        location = StageLocation.parse("@st/" + text, DEFAULT)
    except InvalidNameError:
        return
    assert not set(location.path) & set("'\\; \n\t\"")
    assert ".." not in location.path.split("/")
    assert StageLocation.parse(location.sql) == location


def test_names_that_snowflake_ml_takes_for_anothers_are_refused() -> None:
    refuse_look_alikes("V_1", ["V_1", "V_12", "AV_1", "V.."])
    refuse_look_alikes("V.1", ["V_1", "Vx1"])
    for name, other in (("V_1", "V11"), ("V_1", "v\n1"), ("V%", "V"), ("V%", "V123"), ("%", "a")):
        with pytest.raises(InvalidNameError, match="takes"):
            refuse_look_alikes(name, ["OTHER" if name != "%" else "%", other])
