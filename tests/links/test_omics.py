"""Console links: what they open, and what is kept of them while a task waits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import pytest
from airflow.providers.amazon.aws.links import base_aws
from airflow.providers.amazon.aws.operators.base_aws import AwsBaseOperator
from botocore.handlers import BUILTIN_HANDLERS

try:
    from airflow.sdk import DAG
except ImportError:  # Airflow 2
    from airflow.models.dag import DAG
try:
    from airflow.serialization.serialized_objects import DagSerialization
except ImportError:  # Airflow before 3.2
    from airflow.serialization.serialized_objects import SerializedDAG as DagSerialization

from airflow_provider_omics_cache.hooks.omics import OmicsCacheHook
from airflow_provider_omics_cache.links.omics import (
    OmicsBatchLink,
    OmicsLink,
    OmicsLogGroupLink,
    OmicsRunCacheS3Link,
    OmicsRunGroupLink,
    OmicsRunLink,
    persist_links,
)
from tests.conftest import AIRFLOW_3

if TYPE_CHECKING:
    from collections.abc import Iterator

CACHE_S3_URI = "s3://caches/cohort/a1b2c3d4-0000-1111-2222-333344445555/"
KNOWN = {
    "batch_id": "1000001",
    "run_id": "1234567",
    "run_group_id": "7",
    "cache_s3_uri": CACHE_S3_URI,
    "log_stream_prefix": "run/1234567",
}
LINKS = (OmicsRunLink(), OmicsBatchLink(), OmicsRunGroupLink(), OmicsRunCacheS3Link(), OmicsLogGroupLink())
REGIONS = [
    ("us-east-1", "aws.amazon.com"),
    ("eu-west-2", "aws.amazon.com"),
    ("il-central-1", "aws.amazon.com"),
    ("cn-north-1", "amazonaws.cn"),
    ("us-gov-west-1", "amazonaws-us-gov.com"),
]
LOGS = "/cloudwatch/home?region={region}#logsV2:log-groups/log-group/$252Faws$252Fomics$252FWorkflowLog"


class Linked(AwsBaseOperator[OmicsCacheHook]):
    """An operator with every link."""

    aws_hook_class = OmicsCacheHook
    operator_extra_links: ClassVar[Any] = LINKS

    def execute(self, context: Any) -> None:
        """Wait for nothing."""


def operator(**parameters: Any) -> Linked:
    return Linked(**{"task_id": "linked", "region_name": "us-east-1", **parameters})


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch, task_context: dict[str, Any]) -> Any:
    """Give each link's URL as Airflow does, out of the XComs of the task."""
    ti = task_context["ti"]

    def stored(*, key: str, ti_key: Any) -> Any:
        assert ti_key is ti
        return ti.links.get(key)

    monkeypatch.setattr(base_aws.XCom, "get_value", stored)
    return lambda link: link.get_link(operator(), ti_key=ti)


@pytest.fixture
def sent() -> Iterator[list[str]]:
    """Every call that any AWS client makes."""
    calls: list[str] = []

    def note(model: Any, **_: Any) -> None:
        calls.append(model.name)

    BUILTIN_HANDLERS.append(("before-call.*.*", note))
    yield calls
    BUILTIN_HANDLERS.remove(("before-call.*.*", note))


def formatted(link: OmicsLink, region: str, domain: str | None, **known: Any) -> str:
    return link.format_link(region_name=region, aws_domain=domain, **known)


# What they open


@pytest.mark.parametrize(("region", "domain"), REGIONS)
def test_a_run_opens_its_own_page(region: str, domain: str) -> None:
    url = f"https://{region}.console.{domain}/omics/home?region={region}#/runs/1234567"
    assert formatted(OmicsRunLink(), region, domain, run_id="1234567") == url


@pytest.mark.parametrize(("region", "domain"), REGIONS)
def test_a_batch_opens_the_list_of_runs(region: str, domain: str) -> None:
    url = f"https://{region}.console.{domain}/omics/home?region={region}&batchId=1000001#/runs"
    assert formatted(OmicsBatchLink(), region, domain, batch_id="1000001") == url


@pytest.mark.parametrize(("region", "domain"), REGIONS)
def test_a_run_group_opens_the_list_of_runs(region: str, domain: str) -> None:
    url = f"https://{region}.console.{domain}/omics/home?region={region}&runGroupId=7#/runs"
    assert formatted(OmicsRunGroupLink(), region, domain, run_group_id="7") == url


@pytest.mark.parametrize(("region", "domain"), REGIONS)
@pytest.mark.parametrize(
    ("uri", "bucket", "prefix"),
    [
        (CACHE_S3_URI, "caches", "cohort/a1b2c3d4-0000-1111-2222-333344445555/"),
        ("s3://caches", "caches", ""),
        ("s3://my.caches/two words/a&b=c#d?e/", "my.caches", "two%20words/a%26b%3Dc%23d%3Fe/"),
    ],
)
def test_a_run_cache_opens_its_folder_in_s3(region: str, domain: str, uri: str, bucket: str, prefix: str) -> None:
    url = f"https://console.{domain}/s3/buckets/{bucket}?region={region}&prefix={prefix}"
    assert formatted(OmicsRunCacheS3Link(), region, domain, cache_s3_uri=uri) == url


@pytest.mark.parametrize(("region", "domain"), REGIONS)
@pytest.mark.parametrize(
    ("prefix", "shown"),
    [
        (None, ""),
        ("run/1234567", "$3FlogStreamNameFilter$3Drun$252F1234567"),
        ("runCache/42/", "$3FlogStreamNameFilter$3DrunCache$252F42$252F"),
    ],
)
def test_the_logs_open_the_log_group(region: str, domain: str, prefix: str | None, shown: str) -> None:
    url = f"https://console.{domain}{LOGS.format(region=region)}{shown}"
    assert formatted(OmicsLogGroupLink(), region, domain, log_stream_prefix=prefix) == url


@pytest.mark.parametrize("link", LINKS)
def test_there_is_no_link_where_the_console_is_not_known(link: OmicsLink) -> None:
    assert formatted(link, "eusc-de-east-1", link.get_aws_domain("aws-eusc"), **KNOWN) == ""


@pytest.mark.parametrize("link", [OmicsRunLink(), OmicsBatchLink(), OmicsRunGroupLink(), OmicsRunCacheS3Link()])
def test_there_is_no_link_to_what_is_not_known(link: OmicsLink) -> None:
    assert formatted(link, "us-east-1", "aws.amazon.com") == ""


def test_airflow_knows_the_links_of_a_task_that_is_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    # A DAG that ran in this process before may have made Airflow leave links out.
    monkeypatch.setattr(DagSerialization, "_load_operator_extra_links", True, raising=False)
    with DAG("linked", schedule=None) as dag:
        operator()
        Linked.partial(task_id="mapped").expand(region_name=["us-east-1"])
    stored = DagSerialization.from_dict(DagSerialization.to_dict(dag))
    for task in stored.tasks:
        assert {link.name for link in task.operator_extra_links} == {link.name for link in LINKS}


# What is kept of them


@pytest.mark.parametrize(("region", "domain"), REGIONS)
def test_each_link_is_found_again(region: str, domain: str, task_context: dict[str, Any], opened: Any) -> None:
    persist_links(task_context, operator(region_name=region), **KNOWN)
    for link in LINKS:
        url = formatted(link, region, domain, **KNOWN)
        assert url
        assert opened(link) == url
        if AIRFLOW_3:
            assert task_context["ti"].links[link.xcom_key] == url


def test_the_region_is_the_connections(
    monkeypatch: pytest.MonkeyPatch, task_context: dict[str, Any], opened: Any
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", '{"conn_type": "aws", "extra": {"region_name": "eu-central-1"}}')
    persist_links(task_context, operator(region_name=None), batch_id="1")
    assert opened(OmicsBatchLink()).startswith("https://eu-central-1.console.")


def test_what_is_not_known_yet_is_left_out(task_context: dict[str, Any], opened: Any) -> None:
    persist_links(task_context, operator(), batch_id="1")
    assert [bool(opened(link)) for link in LINKS] == [False, True, False, False, True]
    persist_links(task_context, operator(), batch_id="1", run_id="1234567")
    assert [bool(opened(link)) for link in LINKS] == [True, True, False, False, True]


def test_there_is_no_url_where_the_console_is_not_known(
    monkeypatch: pytest.MonkeyPatch, task_context: dict[str, Any], opened: Any
) -> None:
    monkeypatch.setattr(OmicsCacheHook, "conn_partition", "aws-iso")
    persist_links(task_context, operator(), **KNOWN)
    assert not any(opened(link) for link in LINKS)
    assert task_context["ti"].links.keys() == {OmicsLink.key}


def test_nothing_is_kept_of_a_task_without_xcoms(task_context: dict[str, Any]) -> None:
    persist_links(task_context, operator(do_xcom_push=False), **KNOWN)
    assert task_context["ti"].links == {}


def test_other_links_are_left_alone(task_context: dict[str, Any], opened: Any) -> None:
    class OtherLink(base_aws.BaseAwsLink):
        name = key = format_str = "other"

    linked = operator()
    linked.operator_extra_links = (OtherLink(), OmicsBatchLink())
    persist_links(task_context, linked, batch_id="1")
    assert not opened(OtherLink())
    assert opened(OmicsBatchLink())


def test_a_link_never_fails_a_task(monkeypatch: pytest.MonkeyPatch, task_context: dict[str, Any]) -> None:
    def refuse(key: str, value: Any) -> None:
        raise ConnectionError("no database")

    persist_links(task_context, operator(region_name="no Region"), **KNOWN)
    monkeypatch.setattr(task_context["ti"], "xcom_push", refuse)
    persist_links(task_context, operator(), **KNOWN)
    assert task_context["ti"].links == {}


def test_a_link_costs_no_call(
    local_healthomics: Any, monkeypatch: pytest.MonkeyPatch, task_context: dict[str, Any], sent: list[str], opened: Any
) -> None:
    role = '{"conn_type": "aws", "extra": {"region_name": "us-east-1", "role_arn": "arn:aws:iam::123456789012:role/a"}}'
    monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", role)
    linked = operator()
    list(linked.hook.list_run_caches())
    assert sent == ["AssumeRole", "ListRunCaches"]
    persist_links(task_context, linked, **KNOWN)
    assert sent == ["AssumeRole", "ListRunCaches"]
    assert all(opened(link) for link in LINKS)
