"""Make AWS clients and start moto quickly: tests do so thousands of times."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import botocore.parsers
import botocore.regions
import botocore.useragent
from botocore.client import ClientCreator
from botocore.endpoint_provider import EndpointProvider
from botocore.hooks import BaseEventHooks, EventAliaser
from botocore.loaders import JSONFileLoader, Loader
from botocore.model import ServiceModel

if TYPE_CHECKING:
    import pytest


def install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep what botocore reads and computes for each session and client, and put no caller into the user agent.

    Otherwise each session lists 400 folders and parses megabytes of JSON. It also inspects the signatures of 140
    handlers, and compares the names of their events with 80 old names. Each client makes the model, the methods and the
    endpoint rules of its service. Each call makes the user agent's words printable again, and parses timestamps that
    the answers of a test repeat. The amazon provider searches the stack, which is deep in pytest, for the name of the
    operator. moto registers 1,300 URLs for the library requests, and no test calls AWS with that library.
    """
    import moto.core.models
    from airflow.providers.amazon.aws.hooks.base_aws import AwsGenericHook

    _keep_files(monkeypatch)
    _keep_parts_of_clients(monkeypatch)
    name_once = functools.cache(EventAliaser(None)._alias_event_name)
    monkeypatch.setattr(EventAliaser, "_alias_event_name", lambda self, name: name_once(name))
    monkeypatch.setattr(BaseEventHooks, "_verify_accept_kwargs", lambda self, handler: None)
    sanitized = functools.cache(botocore.useragent.sanitize_user_agent_string_component)
    monkeypatch.setattr(botocore.useragent, "sanitize_user_agent_string_component", sanitized)
    parsed = functools.lru_cache(maxsize=10_000)(botocore.parsers.DEFAULT_TIMESTAMP_PARSER)
    monkeypatch.setattr(botocore.parsers, "DEFAULT_TIMESTAMP_PARSER", parsed)
    monkeypatch.setattr(moto.core.models, "RESPONSES_METHODS", ())
    monkeypatch.setattr(AwsGenericHook, "_get_caller", lambda self: "Tests")


def _keep_files(monkeypatch: pytest.MonkeyPatch) -> None:
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


def _keep_parts_of_clients(monkeypatch: pytest.MonkeyPatch) -> None:
    load_service_model, create_methods = ClientCreator._load_service_model, ClientCreator._create_methods
    # Each value keeps the data whose id is its key, so that no other data gets the id.
    models: dict[int, ServiceModel] = {}
    methods: dict[tuple[type, int], tuple[dict[str, Any], ServiceModel]] = {}
    providers: dict[tuple[int, int], tuple[EndpointProvider, Any, Any]] = {}

    def load_model_once(creator: ClientCreator, *args: Any) -> ServiceModel:
        model = load_service_model(creator, *args)
        return models.setdefault(id(model._service_description), model)

    def create_methods_once(creator: ClientCreator, model: ServiceModel) -> dict[str, Any]:
        key = (type(creator), id(model))
        if key not in methods:
            methods[key] = (create_methods(creator, model), model)
        return dict(methods[key][0])

    def make_provider_once(ruleset_data: Any, partition_data: Any, **kwargs: Any) -> EndpointProvider:
        key = (id(ruleset_data), id(partition_data))
        if key not in providers:
            providers[key] = (EndpointProvider(ruleset_data, partition_data, **kwargs), ruleset_data, partition_data)
        return providers[key][0]

    monkeypatch.setattr(ClientCreator, "_load_service_model", load_model_once)
    monkeypatch.setattr(ClientCreator, "_create_methods", create_methods_once)
    monkeypatch.setattr(botocore.regions, "EndpointProvider", make_provider_once)
