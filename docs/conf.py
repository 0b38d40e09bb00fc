"""Configuration of Sphinx; ``make docs`` builds it."""

import airflow_provider_omics_cache

project = "airflow-provider-omics-cache"
author = "The airflow-provider-omics-cache authors"
copyright = "2026, The airflow-provider-omics-cache authors"
release = airflow_provider_omics_cache.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc"]
html_theme = "furo"
html_title = f"{project} {release}"

autodoc_member_order = "bysource"
autodoc_typehints = "none"
autodoc_default_options = {"members": True}
