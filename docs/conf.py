"""Configuration of Sphinx; ``make docs`` builds it."""

from typing import Any

from airflow.models import BaseOperator

import airflow_provider_omics_cache

project = "airflow-provider-omics-cache"
author = "The airflow-provider-omics-cache authors"
copyright = "2026, The airflow-provider-omics-cache authors"
release = airflow_provider_omics_cache.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc"]
html_theme = "furo"
html_title = f"{project} {release}"
html_static_path = ["_static"]
html_css_files = ["docs.css"]
python_maximum_signature_line_length = 88

autodoc_member_order = "bysource"
# Types stand beside the description of each parameter, also of the parameters of __init__.
autoclass_content = "both"
autodoc_inherit_docstrings = False
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_typehints_format = "short"
autodoc_default_options = {"members": True}


def keep_parameters_only(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Leave only the parameters of an operator's docstring: its page has the description, the XComs and the errors."""
    if what == "class" and issubclass(obj, BaseOperator):
        fields = [number for number, line in enumerate(lines) if line.startswith(":")]
        first = next(number for number in fields if lines[number].startswith(":param "))
        end = next((number for number in fields if not lines[number].startswith(":param ")), len(lines))
        lines[:] = lines[first:end]


def setup(app: Any) -> None:
    """Connect the functions above to autodoc."""
    app.connect("autodoc-process-docstring", keep_parameters_only)
