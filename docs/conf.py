"""How the documentation is built: ``make docs``."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

# Airflow reads these when autodoc imports it.
os.environ["AIRFLOW_HOME"] = tempfile.mkdtemp(prefix="snowml-docs-")
os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

from airflow_provider_snowml import __version__

project = "airflow-provider-snowml"
author = "the contributors of airflow-provider-snowml"
project_copyright = f"2026, {author}"
release = version = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.viewcode", "from_the_code"]
exclude_patterns = ["_build", "snippets"]

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3

autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True

# Every reference of ours must lead somewhere. What others document is not looked up: the build needs no
# network.
nitpicky = True
nitpick_ignore_regex = [
    (r"py:.*", r"(airflow|snowflake|collections|contextlib|datetime|typing|pathlib)\..*"),
    (r"py:class", r"io\.BytesIO|ObjectStoragePath|Session|Registry|date|datetime|timedelta|MetricCallable"),
]

html_theme = "furo"
html_title = f"airflow-provider-snowml {release}"
html_static_path = ["_static"]
html_css_files = ["tables.css"]
html_copy_source = False
html_show_sourcelink = False
