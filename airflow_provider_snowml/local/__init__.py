"""A Snowflake on localhost that the unmodified Snowflake clients talk to.

A program of its own that ships in the same wheel behind the extra ``local``: it imports nothing
of the provider, and nothing of the provider imports it.
"""

from __future__ import annotations

from .launch import LocalSnowflake

__all__ = ["LocalSnowflake"]
