"""Make AWS clients and start moto quickly: tests do so thousands of times."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import botocore.useragent
from botocore.hooks import BaseEventHooks, EventAliaser
from botocore.loaders import JSONFileLoader, Loader

if TYPE_CHECKING:
    import pytest


def install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep botocore's data files and names of events, and put no caller into the user agent.

    Otherwise each session lists 400 folders and parses megabytes of JSON. It also inspects the signatures of 140
    handlers, and compares the names of their events with 80 old names. The amazon provider searches the stack, which
    is deep in pytest, for the name of the operator. moto registers 1,300 URLs for the library requests, and no test
    calls AWS with that library. Each call makes the user agent's words printable again.
    """
    import moto.core.models
    from airflow.providers.amazon.aws.hooks.base_aws import AwsGenericHook

    list_services = Loader.list_available_services
    name_once = functools.cache(EventAliaser(None)._alias_event_name)
    parse_once = functools.cache(JSONFileLoader().load_file)
    listed: dict[Any, list[str]] = {}

    def list_once(loader: Loader, type_name: str) -> list[str]:
        key = (*loader.search_paths, type_name)
        if key not in listed:
            listed[key] = list_services(loader, type_name)
        return listed[key]

    monkeypatch.setattr(JSONFileLoader, "load_file", lambda self, path: parse_once(path))
    monkeypatch.setattr(Loader, "list_available_services", list_once)
    monkeypatch.setattr(EventAliaser, "_alias_event_name", lambda self, name: name_once(name))
    monkeypatch.setattr(BaseEventHooks, "_verify_accept_kwargs", lambda self, handler: None)
    sanitized = functools.cache(botocore.useragent.sanitize_user_agent_string_component)
    monkeypatch.setattr(botocore.useragent, "sanitize_user_agent_string_component", sanitized)
    monkeypatch.setattr(moto.core.models, "RESPONSES_METHODS", ())
    monkeypatch.setattr(AwsGenericHook, "_get_caller", lambda self: "Tests")
