"""Make AWS clients quickly: tests make thousands of them."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from botocore.loaders import JSONFileLoader, Loader

if TYPE_CHECKING:
    import pytest


def install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep botocore's data files, and put no caller into the user agent.

    Each session lists 400 folders and parses megabytes of JSON otherwise. The amazon provider searches the stack, which
    is deep in pytest, for the name of the operator.
    """
    from airflow.providers.amazon.aws.hooks.base_aws import AwsGenericHook

    list_services = Loader.list_available_services
    parse_once = functools.cache(JSONFileLoader().load_file)
    listed: dict[Any, list[str]] = {}

    def list_once(loader: Loader, type_name: str) -> list[str]:
        key = (*loader.search_paths, type_name)
        if key not in listed:
            listed[key] = list_services(loader, type_name)
        return listed[key]

    monkeypatch.setattr(JSONFileLoader, "load_file", lambda self, path: parse_once(path))
    monkeypatch.setattr(Loader, "list_available_services", list_once)
    monkeypatch.setattr(AwsGenericHook, "_get_caller", lambda self: "Tests")
