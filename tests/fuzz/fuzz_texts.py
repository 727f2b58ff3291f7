"""Texts that are hard to quote, and how they are read: by the grammar of the local Snowflake, not by ours."""

from __future__ import annotations

from hypothesis import strategies as st

from airflow_provider_snowml.local.errors import SnowflakeError
from airflow_provider_snowml.local.grammar import Name, parse_name, quote

DROP = "DROP TABLE BAIT;"
PIECES = (
    *("'", "''", '"', '""', "\\", "\\\\", "\\'", '\\"', "$$", "$", ";", "--", "/*", "*/", "//", "#", "|"),
    *("\n", "\r\n", "\t", "\x00", "\x7f", "\u2028", "\u00a0", "\u200b", "\u202e", " "),
    *("é", "ß", "\u0131", "İ", "名前", "😀", "\u02bc", "\uff1b", "e\u0301"),
    *("{{ x }}", "{%", "%}", "{#", "${x}", "%s", "%(x)s", "%", "_", "?", ":1", "&x", "@~", "snow://"),
    *(
        ".",
        "..",
        "/",
        "../",
        "(",
        ")",
        ",",
        "=",
        "!",
        "NULL",
        "None",
        "0",
        "1e309",
        "a",
        "B",
        "V1",
        "M",
        "BAIT",
    ),
    *(f"'; {DROP} --", f'"; {DROP} --', f"$$; {DROP} --", f"\\'; {DROP} --", f"') ; {DROP} --", f"\n{DROP}"),
    *("' OR '1'='1", "V1' COMMENT = 'x", '"."', '".BAIT."', "CHAMPION", "default"),
)
NASTY = f"""a'b"c\\d$$;--/*é😀\n{{{{ x }}}}%_{DROP}"""
# As a name it has to be refused; this one is a name, and one that snowflake-ml can look for.
NASTY_NAME = f'''"a""b $$;--/*é😀{{{{ x }}}} {DROP}"'''

texts = st.one_of(
    st.lists(st.sampled_from(PIECES), min_size=1, max_size=6).map("".join),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=12),
    st.just(NASTY),
)
words = st.from_regex(r"[A-Za-z_][A-Za-z0-9_$]{0,11}", fullmatch=True)
names = st.one_of(
    words,
    texts.map(quote),  # what is written well, whatever is in it
    st.lists(st.sampled_from(PIECES), min_size=1, max_size=4).map("".join),
    texts,
)


def resolved(text: str) -> Name | None:
    """What a name means; None if it is none."""
    try:
        return parse_name(text)
    except SnowflakeError:
        return None


def resolved_part(text: str) -> str | None:
    """The same of a name without database and schema."""
    name = resolved(text)
    return name.name if name is not None and name.schema is None and name.name else None
