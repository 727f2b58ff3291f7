"""``make env``: the secrets of docker-compose.yaml, made here and written into ``.env``, once."""

from __future__ import annotations

import base64
import os
import secrets
import sys
from pathlib import Path

ENV = Path(__file__).resolve().parents[1] / ".env"


def text() -> str:
    """One secret per line; all are safe within a URL, a quoted JSON text and a shell's quotes."""
    made = {name: secrets.token_urlsafe(24) for name in ("POSTGRES_PASSWORD", "SNOWFLAKE_PASSWORD")}
    made["AIRFLOW_SECRET"] = secrets.token_urlsafe(48)
    made["AIRFLOW_FERNET_KEY"] = base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()
    made["AIRFLOW_PASSWORD"] = secrets.token_urlsafe(12)
    return "".join(f"{name}={secret}\n" for name, secret in made.items())


def main() -> int:
    try:
        number = os.open(ENV, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        print(f"{ENV.name} is there already, and is left as it is.")
        return 0
    with os.fdopen(number, "w") as file:
        file.write(text())
    print(f"{ENV.name} holds the secrets of docker-compose.yaml; AIRFLOW_PASSWORD is that of the user admin.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
