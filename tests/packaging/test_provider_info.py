from __future__ import annotations

import importlib
import json
import re
from importlib.metadata import entry_points, metadata, version
from pathlib import Path

import airflow
import jsonschema
import pytest
from airflow.configuration import conf
from airflow.providers.amazon.aws.links.base_aws import BaseAwsLink
from airflow.providers_manager import ProvidersManager
from packaging.utils import canonicalize_name

import airflow_provider_omics_cache
from airflow_provider_omics_cache.get_provider_info import get_provider_info

ROOT = Path(__file__).parents[2]
DISTRIBUTION = "airflow-provider-omics-cache"


def listed_modules() -> list[str]:
    info = get_provider_info()
    return [
        module
        for kind in ("hooks", "operators", "sensors", "triggers")
        for entry in info[kind]
        for module in entry["python-modules"]
    ]


def test_airflow_finds_the_provider() -> None:
    (entry_point,) = entry_points(group="apache_airflow_provider", name="provider_info").select(
        module="airflow_provider_omics_cache.get_provider_info"
    )
    assert entry_point.load() is get_provider_info


def test_provider_info_fits_airflows_schema() -> None:
    schema = json.loads((Path(airflow.__file__).parent / "provider_info.schema.json").read_text())
    jsonschema.validate(get_provider_info(), schema)


def test_package_name_is_the_canonical_distribution_name() -> None:
    """Any other name makes every ``airflow`` command fail."""
    assert get_provider_info()["package-name"] == canonicalize_name(metadata(DISTRIBUTION)["Name"])


def test_description_is_there() -> None:
    assert get_provider_info()["description"]


@pytest.mark.parametrize("module", listed_modules())
def test_listed_module_imports(module: str) -> None:
    importlib.import_module(module)


def test_every_module_that_users_import_from_is_listed() -> None:
    package = ROOT / "airflow_provider_omics_cache"
    there = {
        f"airflow_provider_omics_cache.{kind}.{path.stem}"
        for kind in ("operators", "sensors")
        for path in (package / kind).glob("[!_]*.py")
    }
    # The other modules of hooks/ and triggers/ are the parts that these are made of.
    there |= {f"airflow_provider_omics_cache.{name}" for name in ("hooks.omics", "triggers.run_batch", "triggers.run")}
    assert set(listed_modules()) == there


def test_every_link_of_an_operator_is_listed_and_exists() -> None:
    """Airflow 2 shows the links of listed classes only."""
    listed = set(get_provider_info()["extra-links"])
    for path in listed:
        module, _, name = path.rpartition(".")
        assert issubclass(getattr(importlib.import_module(module), name), BaseAwsLink)
    modules = [importlib.import_module(module) for module in listed_modules()]
    classes = [thing for module in modules for thing in vars(module).values() if isinstance(thing, type)]
    links = [link for each in classes for link in getattr(each, "operator_extra_links", ()) or ()]
    assert {f"{type(link).__module__}.{type(link).__name__}" for link in links} == listed


def test_integrations_are_declared() -> None:
    info = get_provider_info()
    declared = {integration["integration-name"] for integration in info["integrations"]}
    used = {entry["integration-name"] for kind in ("hooks", "operators", "sensors", "triggers") for entry in info[kind]}
    assert used == declared


def test_options_have_their_defaults_without_a_configuration_file() -> None:
    ProvidersManager().initialize_providers_configuration()
    for section, content in get_provider_info()["config"].items():
        for name, option in content["options"].items():
            assert conf.get(section, name) == option["default"]


def test_version_is_that_of_the_newest_changelog_heading() -> None:
    newest = re.search(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest is not None
    assert newest[1] == airflow_provider_omics_cache.__version__ == version(DISTRIBUTION)
