"""What we believe of Snowflake, tried on a real account: ``make verify``."""
