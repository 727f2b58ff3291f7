"""The fuzzing's own modules are imported from where they lie."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session")
def tried(request):
    """How many texts were tried; said at the end."""
    counts = {"tried": 0, "accepted": 0}
    yield counts
    reporter = request.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None and counts["tried"]:
        reporter.write_line(f"\nfuzz: {counts['tried']} texts tried, {counts['accepted']} accepted")
