from __future__ import annotations

import functools
import json
import os
import pickle
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from unittest.mock import ANY

import boto3
import botocore
import botocore.loaders
import pytest
from airflow import DAG
from botocore.exceptions import ClientError, EndpointConnectionError
from botocore.stub import Stubber

from airflow_provider_omics_cache.exceptions import (
    BatchCancelledError,
    BatchConflictError,
    BatchDeletedError,
    BatchError,
    BatchFailedError,
    OmicsApiError,
    OmicsError,
    OmicsParameterError,
    OmicsRequestError,
    OmicsVersionError,
)
from airflow_provider_omics_cache.healthomics.once import DIGEST_TAG, GENERATION_TAG
from airflow_provider_omics_cache.healthomics.outputs import OWN_OUTPUT_URIS
from airflow_provider_omics_cache.healthomics.start import ETAG_TAG
from airflow_provider_omics_cache.hooks.omics import OmicsCacheHook
from airflow_provider_omics_cache.operators.run_batch import StartRunBatchOperator
from airflow_provider_omics_cache.xcoms import BatchXCom
from tests.conftest import needs_batches
from tests.operators.batch_states import answer, changed_answers, die
from tests.sensor_modes import use_service_time

if TYPE_CHECKING:
    from airflow_provider_omics_cache.local import LocalHealthOmics

BUCKET = "omics-settings"
PREFIX = f"s3://{BUCKET}/staged"
DEFAULT_RUN_SETTING = {
    "workflowId": "1234567",
    "roleArn": "arn:aws:iam::123456789012:role/omics",
    "outputUri": "s3://omics-results/cohort/",
    "parameters": {"reference": "s3://omics-data/GRCh38.fa"},
}
ONE_ATTEMPT = {"retries": {"total_max_attempts": 1}}

NewContext = Callable[[], dict[str, Any]]
S3Of = Callable[[StartRunBatchOperator], Any]


def settings_of(count: int, **members: Any) -> list[dict[str, Any]]:
    return [
        {"runSettingId": f"sample-{number}", "parameters": {"sample": number}, **members} for number in range(count)
    ]


def tags_of(count: int) -> dict[str, str]:
    return {f"key-{number}": "value" for number in range(count)}


REPLACED = r"has {} bytes, but these run settings have [0-9,]+: the file was replaced. Delete it"
STAGED = {"run_settings": settings_of(101), "settings_s3_prefix": PREFIX}


def operator(**kwargs: Any) -> StartRunBatchOperator:
    given = {"default_run_setting": DEFAULT_RUN_SETTING, "run_settings": settings_of(2), **kwargs}
    return StartRunBatchOperator(task_id="start_batch", **given)


def start(context: dict[str, Any], **kwargs: Any) -> str:
    batch_id = operator(**kwargs).execute(context)
    assert batch_id == context["ti"].xcoms["batch"]["id"]
    return batch_id


@functools.cache
def s3() -> Any:
    return boto3.client("s3", region_name="us-east-1")


@functools.cache
def aws() -> OmicsCacheHook:
    """Look at the service from outside of the operator."""
    return OmicsCacheHook()


def staged_keys(bucket: str = BUCKET) -> list[str]:
    return [item["Key"] for item in s3().list_objects_v2(Bucket=bucket).get("Contents", [])]


def start_batch_of_the_name(tags: dict[str, str]) -> str:
    """Start a batch with the name of the task's batches, as an earlier try with other settings did."""
    answer = aws().start_run_batch(
        default_run_setting=DEFAULT_RUN_SETTING,
        batch_run_settings={"inlineSettings": settings_of(2)},
        batch_name="cohort.start_batch-0f41008503ce1b79",
        tags=tags,
    )
    return str(answer["id"])


def batches() -> list[dict[str, Any]]:
    """All batches of the account, oldest first."""
    return list(aws().list_batch())


@pytest.fixture
def local(local_healthomics: LocalHealthOmics, monkeypatch: pytest.MonkeyPatch) -> LocalHealthOmics:
    """A local HealthOmics with a bucket; whoever sleeps advances its clock."""
    use_service_time(monkeypatch, local_healthomics)
    s3().create_bucket(Bucket=BUCKET)
    return local_healthomics


@pytest.fixture
def s3_of() -> S3Of:
    """Make the S3 client of a task's run settings before the task does, so that a test can stub it."""

    def s3_of(task: StartRunBatchOperator) -> Any:
        return task._s3

    return s3_of


def finish(local: LocalHealthOmics, batch_id: str) -> None:
    local.clock.advance(10_000)
    assert aws().get_batch(batch_id=batch_id)["status"] == "PROCESSED"


@needs_batches
def test_the_log_says_what_was_started(
    local: LocalHealthOmics, new_task_context: NewContext, caplog: Any, capsys: Any
) -> None:
    cache_id = aws().create_run_cache(cache_s3_location=f"s3://{BUCKET}/cache", request_id="once")["id"]
    setting = {**DEFAULT_RUN_SETTING, "cacheId": cache_id}
    s3().put_object(Bucket=BUCKET, Key="mine.json", Body=json.dumps(settings_of(3)))
    started = [
        (settings_of(2), "2 runs"),
        (f"s3://{BUCKET}/mine.json", f"the runs of s3://{BUCKET}/mine.json"),
    ]
    for run_settings, runs in started:
        context = new_task_context()
        context["ti"].task_id = runs[:5].strip()
        batch_id = start(context, default_run_setting=setting, run_settings=run_settings)
        name = context["ti"].xcoms["batch"]["name"]
        assert (
            f"Started batch {batch_id} ({name}) with {runs} of workflow 1234567, run cache {cache_id}, "
            "outputs under s3://omics-results/cohort/"
        ) in caplog.text + capsys.readouterr().out  # Airflow 3 logs past the logging module


@needs_batches
class TestSettings:
    @pytest.mark.parametrize("count", [1, 100])
    def test_up_to_100_go_inline(self, local: LocalHealthOmics, task_context: dict[str, Any], count: int) -> None:
        batch_id = start(task_context, run_settings=settings_of(count), settings_s3_prefix=PREFIX)
        assert staged_keys() == []
        pushed = task_context["ti"].xcoms["batch"]
        assert (pushed["expected_runs"], pushed["settings_s3_uri"]) == (count, None)
        finish(local, batch_id)
        assert len(list(aws().list_runs_in_batch(batch_id=batch_id))) == count

    @pytest.mark.parametrize("prefix", [PREFIX, f"{PREFIX}/", f"s3://{BUCKET}", f"s3://{BUCKET}/"])
    @pytest.mark.parametrize("count", [101, 250])
    def test_more_are_staged(
        self, local: LocalHealthOmics, task_context: dict[str, Any], count: int, prefix: str
    ) -> None:
        settings = settings_of(count, name="é")
        batch_id = start(task_context, run_settings=settings, settings_s3_prefix=prefix)
        (key,) = staged_keys()
        pushed = task_context["ti"].xcoms["batch"]
        assert (pushed["expected_runs"], pushed["settings_s3_uri"]) == (count, f"s3://{BUCKET}/{key}")
        assert pushed["settings_s3_uri"].startswith(prefix)
        assert "//" not in key
        staged = s3().get_object(Bucket=BUCKET, Key=key)
        assert json.load(staged["Body"]) == settings
        assert staged["ContentType"] == "application/json"
        finish(local, batch_id)
        assert len(list(aws().list_runs_in_batch(batch_id=batch_id))) == count

    @pytest.mark.large
    def test_100_000(self, local: LocalHealthOmics, task_context: dict[str, Any]) -> None:
        local.settings.submission_rate = 1e9
        batch_id = start(task_context, run_settings=settings_of(100_000), settings_s3_prefix=PREFIX)
        finish(local, batch_id)
        batch = aws().get_batch(batch_id=batch_id)
        assert batch["submissionSummary"]["successfulStartSubmissionCount"] == 100_000
        assert task_context["ti"].xcoms["batch"]["expected_runs"] == 100_000

    def test_settings_that_are_staged_already_are_not_written_again(
        self, local: LocalHealthOmics, new_task_context: NewContext
    ) -> None:
        kwargs = {"run_settings": settings_of(101), "settings_s3_prefix": PREFIX}
        start(new_task_context(), **kwargs)
        (key,) = staged_keys()
        written = s3().head_object(Bucket=BUCKET, Key=key)["LastModified"]
        s3().put_object_tagging(Bucket=BUCKET, Key=key, Tagging={"TagSet": [{"Key": "seen", "Value": "yes"}]})
        start(new_task_context(), rerun_key="again", **kwargs)
        assert staged_keys() == [key]
        assert s3().head_object(Bucket=BUCKET, Key=key)["LastModified"] == written
        assert s3().get_object_tagging(Bucket=BUCKET, Key=key)["TagSet"], "the object was written again"
        assert len(batches()) == 2

    def test_a_replaced_file_is_not_used(self, local: LocalHealthOmics, new_task_context: NewContext) -> None:
        kwargs = {"run_settings": settings_of(101), "settings_s3_prefix": PREFIX}
        start(new_task_context(), **kwargs)
        (key,) = staged_keys()
        s3().put_object(Bucket=BUCKET, Key=key, Body=b"[]")
        with pytest.raises(OmicsError, match=REPLACED.format(2)):
            start(new_task_context(), rerun_key="again", **kwargs)
        assert len(batches()) == 1

    def test_extra_arguments_reach_s3(self, local: LocalHealthOmics, task_context: dict[str, Any]) -> None:
        extra = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": "alias/omics", "ContentType": "text/plain"}
        start(task_context, run_settings=settings_of(101), settings_s3_prefix=PREFIX, s3_extra_args=extra)
        (key,) = staged_keys()
        found = s3().head_object(Bucket=BUCKET, Key=key)
        assert (found["ServerSideEncryption"], found["ContentType"]) == ("aws:kms", "text/plain")

    def test_a_uri_of_the_users_is_passed_on(self, local: LocalHealthOmics, task_context: dict[str, Any]) -> None:
        uri = f"s3://{BUCKET}/own.json"
        s3().put_object(Bucket=BUCKET, Key="own.json", Body=json.dumps(settings_of(3)))
        batch_id = start(task_context, run_settings=uri)
        pushed = task_context["ti"].xcoms["batch"]
        assert (pushed["expected_runs"], pushed["settings_s3_uri"]) == (None, uri)
        assert staged_keys() == ["own.json"]
        finish(local, batch_id)
        assert len(list(aws().list_runs_in_batch(batch_id=batch_id))) == 3

    def test_the_content_behind_the_users_uri_is_part_of_the_request(
        self, local: LocalHealthOmics, new_task_context: NewContext
    ) -> None:
        uri = f"s3://{BUCKET}/own.json"
        s3().put_object(Bucket=BUCKET, Key="own.json", Body=json.dumps(settings_of(3)))
        first = start(new_task_context(), run_settings=uri)
        finish(local, first)
        assert start(new_task_context(), run_settings=uri) == first
        s3().put_object(Bucket=BUCKET, Key="own.json", Body=json.dumps(settings_of(4)))
        assert start(new_task_context(), run_settings=uri) != first

    def test_a_uri_that_the_task_may_not_read_is_passed_on(
        self, local: LocalHealthOmics, task_context: dict[str, Any], s3_of: S3Of
    ) -> None:
        s3().put_object(Bucket=BUCKET, Key="own.json", Body=json.dumps(settings_of(3)))
        task = operator(run_settings=f"s3://{BUCKET}/own.json")
        client = s3_of(task)

        def forbid(**_: Any) -> None:
            answer = {"Error": {"Code": "403", "Message": "Forbidden"}, "ResponseMetadata": {"HTTPStatusCode": 403}}
            raise ClientError(answer, "HeadObject")

        client.meta.events.register("before-call.s3.HeadObject", forbid)
        assert task.execute(task_context) == batches()[0]["id"]

    def test_tags_and_run_tags(self, local: LocalHealthOmics, task_context: dict[str, Any]) -> None:
        default = {**DEFAULT_RUN_SETTING, "runTags": {"project": "old", "lab": "7"}}
        batch_id = start(
            task_context, default_run_setting=default, tags={"team": "genomics"}, run_tags={"project": "new"}
        )
        batch = aws().get_batch(batch_id=batch_id)
        assert batch["defaultRunSetting"]["runTags"] == {"project": "new", "lab": "7"}
        ti = task_context["ti"]
        task = {"airflow-dag-id": ti.dag_id, "airflow-run-id": ti.run_id, "airflow-task-id": ti.task_id}
        assert batch["tags"].keys() == {"team", DIGEST_TAG, GENERATION_TAG, OWN_OUTPUT_URIS, *task}
        assert {key: batch["tags"][key] for key in task} == task
        assert default["runTags"] == {"project": "old", "lab": "7"}, "the author's dict was changed"

    @pytest.mark.parametrize(("flag", "most", "own"), [("True", 42, 7), ("False", 46, 3)])
    def test_all_tags_that_fit(
        self,
        local: LocalHealthOmics,
        task_context: dict[str, Any],
        monkeypatch: pytest.MonkeyPatch,
        flag: str,
        most: int,
        own: int,
    ) -> None:
        monkeypatch.setenv("AIRFLOW__OMICS_CACHE__TAG_WITH_TASK", flag)
        task_context["ti"].map_index = 3
        default = {**DEFAULT_RUN_SETTING, "runTags": {"key-0": "old", "lab": "7"}}
        batch_id = start(task_context, default_run_setting=default, tags=tags_of(most), run_tags=tags_of(49))
        batch = aws().get_batch(batch_id=batch_id)
        assert (len(batch["tags"]), len(batch["defaultRunSetting"]["runTags"])) == (most + own, 50)
        assert batch["tags"].get("airflow-map-index") == ("3" if flag == "True" else None)

    def test_a_retry_finds_its_batch_without_the_tags_of_the_task(
        self, local: LocalHealthOmics, new_task_context: NewContext, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        batch_id = start(new_task_context())
        monkeypatch.setenv("AIRFLOW__OMICS_CACHE__TAG_WITH_TASK", "False")
        assert start(new_task_context(), tags={"airflow-dag-id": "mine"}) == batch_id
        assert len(batches()) == 1

    def test_ids_may_be_numbers(self, local: LocalHealthOmics, task_context: dict[str, Any]) -> None:
        batch_id = start(task_context, default_run_setting={**DEFAULT_RUN_SETTING, "workflowId": 1234567})
        assert aws().get_batch(batch_id=batch_id)["defaultRunSetting"]["workflowId"] == "1234567"

    def test_the_batch_is_named_after_the_task_or_as_the_user_wants(
        self, local: LocalHealthOmics, new_task_context: NewContext
    ) -> None:
        start(new_task_context())
        start(new_task_context(), batch_name="cohort-7 " * 20, rerun_key="2")
        names = [batch["name"] for batch in batches()]
        assert names[0].startswith("cohort.start_batch-")
        assert names[1].startswith("cohort-7 cohort-7 ")
        assert len(names[1]) == 64


OWNER = {"ExpectedBucketOwner": "111122223333"}


@needs_batches
class TestS3:
    """What S3 is asked."""

    @pytest.mark.parametrize(
        ("bucket", "extra", "sent"),
        [
            ("omics-results", None, {"ContentType": "application/json", **OWNER}),
            ("omics-results", {"ContentType": "text/plain"}, {"ContentType": "text/plain", **OWNER}),
            (
                "omics-results",
                {"ExpectedBucketOwner": "444455556666"},
                {"ContentType": "application/json", "ExpectedBucketOwner": "444455556666"},
            ),
            ("omics-other", None, {"ContentType": "application/json"}),
        ],
    )
    @pytest.mark.parametrize("is_there", [False, True])
    def test_an_upload(
        self,
        local: LocalHealthOmics,
        task_context: dict[str, Any],
        s3_of: S3Of,
        bucket: str,
        extra: dict[str, Any] | None,
        sent: dict[str, Any],
        is_there: bool,
    ) -> None:
        default = {**DEFAULT_RUN_SETTING, "outputBucketOwnerId": OWNER["ExpectedBucketOwner"]}
        prefix = f"s3://{bucket}/staged"
        task = operator(**{**STAGED, "settings_s3_prefix": prefix}, default_run_setting=default, s3_extra_args=extra)
        with Stubber(s3_of(task)) as stubber:
            put = {"Bucket": bucket, "Key": ANY, "Body": ANY, "IfNoneMatch": "*", **sent}
            if is_there:
                stubber.add_client_error("put_object", "PreconditionFailed", "", 412, expected_params=put)
                head = {"Bucket": bucket, "Key": ANY, **{name: sent[name] for name in OWNER if name in sent}}
                stubber.add_response("head_object", {"ContentLength": 1, "ETag": "a"}, head)
                with pytest.raises(OmicsError, match=REPLACED.format(1)):
                    task.execute(task_context)
            else:
                stubber.add_response("put_object", {"ETag": "a"}, put)
                with pytest.raises(
                    OmicsRequestError, match=r"StartRunBatch failed: .*cannot be accessed"
                ):  # nothing was written
                    task.execute(task_context)
            stubber.assert_no_pending_responses()

    def test_a_look_at_a_file_of_the_users(
        self, local: LocalHealthOmics, task_context: dict[str, Any], s3_of: S3Of
    ) -> None:
        s3().put_object(Bucket=BUCKET, Key="own.json", Body=json.dumps(settings_of(3)))
        task = operator(run_settings=f"s3://{BUCKET}/own.json", s3_extra_args={"ACL": "private", **OWNER})
        with Stubber(s3_of(task)) as stubber:
            stubber.add_response("head_object", {"ETag": "a"}, {"Bucket": BUCKET, "Key": "own.json", **OWNER})
            task.execute(task_context)
            stubber.assert_no_pending_responses()

    def test_a_look_that_fails(self, local: LocalHealthOmics, task_context: dict[str, Any], s3_of: S3Of) -> None:
        task = operator(run_settings=f"s3://{BUCKET}/own.json")
        with Stubber(s3_of(task)) as stubber:
            stubber.add_client_error("head_object", "InvalidRequest", "sorry", 400)
            with pytest.raises(OmicsApiError, match="HeadObject failed: InvalidRequest: sorry"):
                task.execute(task_context)
        assert local.calls["ListBatch"] == 0

    def test_its_clients_have_the_operators_settings(self, local: LocalHealthOmics, s3_of: S3Of) -> None:
        task = operator(region_name="eu-west-1", verify=False, botocore_config={"read_timeout": 77})
        for client in (s3_of(task), task._s3):
            assert client.meta.region_name == "eu-west-1"
            assert client.meta.config.read_timeout == 77
            assert client._endpoint.http_session._verify is False


@needs_batches
class TestOnce:
    def test_xcom(self, local: LocalHealthOmics, task_context: dict[str, Any]) -> None:
        batch_id = start(task_context)
        pushed = task_context["ti"].xcoms["batch"]
        batch = aws().get_batch(batch_id=batch_id)
        assert pushed.pop("request_id").startswith("run-batch-")
        assert pushed == {
            **dict.fromkeys(sorted(BatchXCom.__annotations__.keys() - {"request_id"})),
            "id": batch_id,
            "arn": batch["arn"],
            "uuid": batch["uuid"],
            "status": "CREATING",
            "name": batch["name"],
            "expected_runs": 2,
            "settings_s3_uri": None,
            "reattached": False,
        }

    @pytest.mark.parametrize("forget", [False, True])
    @pytest.mark.parametrize("finished", [False, True])
    @pytest.mark.parametrize("count", [2, 101])
    def test_every_try_takes_the_same_batch(
        self, local: LocalHealthOmics, new_task_context: NewContext, forget: bool, finished: bool, count: int
    ) -> None:
        kwargs = {"run_settings": settings_of(count), "settings_s3_prefix": PREFIX}
        contexts = [new_task_context() for _ in range(4)]
        first = start(contexts[0], **kwargs)
        if finished:
            finish(local, first)
        for context in contexts[1:]:
            if forget:
                local.forget_tokens()
            local.clock.advance(1)
            assert start(context, **kwargs) == first
        assert local.calls["StartRunBatch"] == 1
        first_xcom, *later = [context["ti"].xcoms["batch"] for context in contexts]
        assert [xcom["reattached"] for xcom in later] == [True] * 3
        assert {xcom["request_id"] for xcom in later} == {first_xcom["request_id"]}
        assert {xcom["settings_s3_uri"] for xcom in later} == {first_xcom["settings_s3_uri"]}

    def test_other_tasks_runs_maps_keys_and_deployments_have_their_own(
        self, local: LocalHealthOmics, new_task_context: NewContext, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def with_ti(**attributes: Any) -> dict[str, Any]:
            context = new_task_context()
            for name, value in attributes.items():
                setattr(context["ti"], name, value)
            return context

        started = [
            start(new_task_context()),
            start(with_ti(dag_id="other")),
            start(with_ti(run_id="other")),
            start(with_ti(task_id="other")),
            start(with_ti(map_index=0)),
            start(with_ti(map_index=1)),
            start(new_task_context(), rerun_key="2"),
        ]
        monkeypatch.setenv("AIRFLOW__OMICS_CACHE__TOKEN_NAMESPACE", "staging")
        started.append(start(new_task_context()))
        assert len(set(started)) == len(started)

    @pytest.mark.parametrize("count", [2, 101])
    @pytest.mark.parametrize("finished", [False, True])
    def test_the_order_of_settings_is_not_paid_for_again(
        self, local: LocalHealthOmics, new_task_context: NewContext, count: int, finished: bool
    ) -> None:
        first = start(new_task_context(), run_settings=settings_of(count), settings_s3_prefix=PREFIX)
        if finished:
            finish(local, first)
        context = new_task_context()
        assert start(context, run_settings=settings_of(count)[::-1], settings_s3_prefix=PREFIX) == first
        assert context["ti"].xcoms["batch"]["reattached"]
        assert len(batches()) == 1

    def test_the_order_of_keys_and_an_empty_rerun_key_make_no_difference(
        self, local: LocalHealthOmics, new_task_context: NewContext
    ) -> None:
        first = start(new_task_context())
        reordered = [dict(reversed(setting.items())) for setting in settings_of(2)]
        default = dict(reversed(DEFAULT_RUN_SETTING.items()))
        context = new_task_context()
        assert start(context, run_settings=reordered, default_run_setting=default, rerun_key="") == first

    @pytest.mark.parametrize("forget", [False, True])
    def test_a_worker_that_dies_before_the_answer(
        self,
        local: LocalHealthOmics,
        new_task_context: NewContext,
        monkeypatch: pytest.MonkeyPatch,
        forget: bool,
    ) -> None:
        die(monkeypatch, OmicsCacheHook, "start_run_batch")
        context = new_task_context()
        with pytest.raises(KeyboardInterrupt):
            start(context)
        assert context["ti"].xcoms == {}
        assert len(batches()) == 1
        if forget:
            local.forget_tokens()
        assert start(new_task_context()) == batches()[0]["id"]
        assert len(batches()) == 1

    def test_botocores_own_retry_is_a_replay(self, local: LocalHealthOmics, task_context: dict[str, Any]) -> None:
        local.faults.drop_connection("StartRunBatch", times=1, after_effect=True)
        assert start(task_context) == batches()[0]["id"]
        assert local.calls["StartRunBatch"] == 2
        assert len(batches()) == 1

    @pytest.mark.parametrize("lag", [0, 20])
    def test_two_tries_at_once(self, local: LocalHealthOmics, new_task_context: NewContext, lag: float) -> None:
        """Both have looked and found nothing when the other one starts the batch."""
        local.settings.batch_visible_after = lag
        slow, other = operator(), new_task_context()
        slow.hook.conn.meta.events.register_first("before-call.omics.StartRunBatch", lambda **_: start(other) and None)
        context = new_task_context()
        assert slow.execute(context) == other["ti"].xcoms["batch"]["id"]
        assert len(batches()) == 1
        assert local.calls["StartRunBatch"] == 2

    @pytest.mark.parametrize("error", ["ConflictException", "ValidationException"])
    def test_two_tries_at_once_with_other_tags(
        self, local: LocalHealthOmics, new_task_context: NewContext, error: str
    ) -> None:
        """The service refuses the token of the same work with another body: the other try's batch is taken."""
        local.settings.changed_request_error = error
        slow, other = operator(tags={"owner": "new"}), new_task_context()
        slow.hook.conn.meta.events.register_first(
            "before-call.omics.StartRunBatch", lambda **_: start(other, tags={"owner": "old"}) and None
        )
        context = new_task_context()
        assert slow.execute(context) == other["ti"].xcoms["batch"]["id"]
        assert context["ti"].xcoms["batch"]["reattached"]
        assert len(batches()) == 1

    def test_a_refused_token_of_a_failed_batch_is_followed_by_the_next(
        self, local: LocalHealthOmics, task_context: dict[str, Any]
    ) -> None:
        """Another try with other tags has started a batch in the meantime, which failed at once."""
        local.settings.failed_batch_token = "replays"
        local.settings.creating_seconds = 0
        local.faults.fail_batch(after="CREATING", times=1)
        client, slow = aws().conn, operator()

        def start_first(params: dict[str, Any], **_: Any) -> None:
            if not batches():
                client.start_run_batch(**{**params, "tags": {**params["tags"], "owner": "other"}})

        slow.hook.conn.meta.events.register("provide-client-params.omics.StartRunBatch", start_first)
        before = local.clock.now()
        batch_id = slow.execute(task_context)
        failed, taken = batches()
        assert (failed["status"], taken["id"]) == ("FAILED", batch_id)
        seconds = (local.clock.now() - before).total_seconds()
        assert 300 <= seconds < 700, "its counts and listings may be late, and then the batch of another try"

    def test_a_refused_token_waits_for_a_batch_that_is_listed_late(
        self, local: LocalHealthOmics, new_task_context: NewContext, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        local.settings.batch_visible_after = 200
        die(monkeypatch, OmicsCacheHook, "start_run_batch")
        with pytest.raises(KeyboardInterrupt):
            start(new_task_context(), tags={"owner": "old"})
        context = new_task_context()
        start(context, tags={"owner": "new"})
        assert context["ti"].xcoms["batch"]["reattached"]
        assert len(batches()) == 1

    def test_a_refused_token_is_not_replaced(self, local: LocalHealthOmics, new_task_context: NewContext) -> None:
        """The batch may have another name and run: to start another one would be paid for twice."""
        start(new_task_context())
        renamed = {"batch_name": "renamed"}
        with pytest.raises(OmicsApiError, match=r"ConflictException.*another batch_name.* or set rerun_key"):
            start(new_task_context(), **renamed)
        assert len(batches()) == 1
        start(new_task_context(), rerun_key="2", **renamed)
        assert len(batches()) == 2

    def test_a_young_batch_is_waited_for(self, local: LocalHealthOmics, task_context: dict[str, Any]) -> None:
        local.settings.batch_visible_after = 60
        start(task_context)
        assert local.calls["GetBatch"] > 1

    def test_a_batch_that_is_never_found_fails_the_try_and_is_not_replaced(
        self, local: LocalHealthOmics, new_task_context: NewContext
    ) -> None:
        local.settings.batch_visible_after = 1_000
        with pytest.raises(OmicsError, match=r"^Batch \d+ was started, but GetBatch did not find it") as caught:
            start(new_task_context())
        assert not isinstance(caught.value, BatchError), "a retry can succeed"
        local.clock.advance(1_000)
        start(new_task_context())
        assert len(batches()) == 1

    @pytest.mark.parametrize("forget", [False, True])
    def test_a_deleted_batch_is_replaced_when_its_token_is_forgotten(
        self, local: LocalHealthOmics, new_task_context: NewContext, forget: bool
    ) -> None:
        first = start(new_task_context())
        finish(local, first)
        aws().delete_batch(batch_id=first)
        if forget:
            local.forget_tokens()
            assert start(new_task_context()) != first
        else:
            with pytest.raises(OmicsError, match="If it was deleted, set rerun_key"):
                start(new_task_context())
            assert start(new_task_context(), rerun_key="2") != first

    @pytest.mark.parametrize("operation", ["StartRunBatch", "ListBatch", "GetBatch"])
    def test_throttling_is_waiting(self, local: LocalHealthOmics, task_context: dict[str, Any], operation: str) -> None:
        local.faults.throttle(operation, times=20)
        before = local.clock.now()
        start(task_context, botocore_config=ONE_ATTEMPT)
        assert (local.clock.now() - before).total_seconds() > 60
        assert local.calls[operation] >= 21
        assert len(batches()) == 1

    @pytest.mark.parametrize("operation", ["ListBatch", "StartRunBatch", "GetBatch"])
    @pytest.mark.parametrize("fault", ["InternalServerException", 503, "dropped", "lost answer"])
    def test_faults_that_pass_are_waited_out(
        self, local: LocalHealthOmics, task_context: dict[str, Any], operation: str, fault: str | int
    ) -> None:
        """ListBatch is called before StartRunBatch, and GetBatch after it."""
        if fault in {"dropped", "lost answer"}:
            local.faults.drop_connection(operation, times=20, after_effect=fault == "lost answer")
        elif isinstance(fault, int):
            local.faults.error(operation, code="ServiceUnavailable", status=fault, times=20)
        else:
            local.faults.error(operation, code=fault, times=20)
        before = local.clock.now()
        batch_id = start(task_context, botocore_config=ONE_ATTEMPT)
        assert (local.clock.now() - before).total_seconds() > 180
        assert task_context["ti"].xcoms["batch"]["reattached"] is False
        assert [batch["id"] for batch in batches()] == [batch_id]

    @pytest.mark.parametrize("count", [2, 101])
    def test_the_batch_is_known_as_soon_as_it_is_started(
        self, local: LocalHealthOmics, new_task_context: NewContext, count: int
    ) -> None:
        settings = {"run_settings": settings_of(count), "settings_s3_prefix": PREFIX}
        local.faults.error("GetBatch", code="AccessDeniedException", message="not you", times=None)
        context = new_task_context()
        with pytest.raises(OmicsApiError, match="AccessDeniedException: not you"):
            start(context, **settings)
        (batch,) = batches()
        pushed = context["ti"].xcoms["batch"]
        local.faults.clear()
        retry = new_task_context()
        assert start(retry, **settings) == batch["id"]
        found = retry["ti"].xcoms["batch"]
        assert found["reattached"] is True
        assert pushed == {**found, "status": None, "reattached": False}

    def test_throttling_for_hours_fails_the_try(self, local: LocalHealthOmics, task_context: dict[str, Any]) -> None:
        local.faults.throttle("StartRunBatch", times=None)
        with pytest.raises(OmicsApiError, match="ThrottlingException") as caught:
            start(task_context, botocore_config=ONE_ATTEMPT)
        assert not isinstance(caught.value, OmicsRequestError)

    def test_a_listing_may_hold_other_names(self, local: LocalHealthOmics, task_context: dict[str, Any]) -> None:
        """Whether ListBatch's filter takes whole names or beginnings is not documented."""
        other = {"id": "1", "name": "cohort.start_batch-0f41008503ce1b79-2", "status": "PROCESSED"}
        with changed_answers("ListBatch", {"items": [other]}):
            batch_id = start(task_context)
        assert [batch["id"] for batch in batches()] == [batch_id]

    def test_an_s3_that_cannot_be_reached(
        self, local: LocalHealthOmics, task_context: dict[str, Any], s3_of: S3Of, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        extra = {"endpoint_url": "http://127.0.0.1:1", "config_kwargs": ONE_ATTEMPT}
        monkeypatch.setenv("AIRFLOW_CONN_LAB", json.dumps({"conn_type": "aws", "extra": extra}))
        task = operator(run_settings=settings_of(101), settings_s3_prefix=PREFIX, s3_conn_id="lab")

        def refuse(request: Any, **_: Any) -> None:
            raise EndpointConnectionError(endpoint_url=request.url)

        s3_of(task).meta.events.register_first("before-send.s3", refuse)
        began = local.clock.elapsed()
        with pytest.raises(OmicsApiError, match=r"PutObject failed: EndpointConnectionError.*127\.0\.0\.1") as caught:
            task.execute(task_context)
        assert local.calls["ListBatch"] > 0, "HealthOmics has answered before"
        assert 30 < local.clock.elapsed() - began <= 60
        assert not isinstance(caught.value, OmicsRequestError), "a retry can succeed"
        assert batches() == []

    def test_an_s3_connection_of_which_no_client_can_be_made(
        self, local: LocalHealthOmics, task_context: dict[str, Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        extra = {"region_name": "us east"}
        monkeypatch.setenv("AIRFLOW_CONN_LAB", json.dumps({"conn_type": "aws", "extra": extra}))
        with pytest.raises(OmicsApiError, match="CreateClient failed: InvalidRegionError"):
            start(task_context, **STAGED, s3_conn_id="lab")
        assert local.calls["StartRunBatch"] == 0

    def test_another_try_uploads_at_this_moment(
        self, local: LocalHealthOmics, task_context: dict[str, Any], s3_of: S3Of
    ) -> None:
        conflicts = iter(range(2))

        def conflict(**_: Any) -> None:
            if next(conflicts, None) is not None:
                raise ClientError({"Error": {"Code": "ConditionalRequestConflict", "Message": ""}}, "PutObject")

        task = operator(run_settings=settings_of(101), settings_s3_prefix=PREFIX)
        s3_of(task).meta.events.register("before-call.s3.PutObject", conflict)
        task.execute(task_context)
        assert len(staged_keys()) == 1


both_tokens = pytest.mark.parametrize("token", ["starts_again", "replays"])


@needs_batches
class TestTable:
    """What becomes of the batch that is there."""

    OTHER = settings_of(3)

    @pytest.mark.parametrize("seconds", [0, 2, 3.05])
    def test_active_with_other_settings(
        self, local: LocalHealthOmics, new_task_context: NewContext, seconds: float
    ) -> None:
        first = start(new_task_context())
        local.clock.advance(seconds)
        with pytest.raises(
            BatchConflictError, match=r"it was started with other settings\. Cancel it, or set rerun_key"
        ) as caught:
            start(new_task_context(), run_settings=self.OTHER)
        assert caught.value.batch_id == first
        assert len(batches()) == 1
        assert pickle.loads(pickle.dumps(caught.value)).batch_id == first

    @pytest.mark.parametrize(
        "change",
        [
            {"run_settings": OTHER},
            {"run_tags": {"project": "new"}},
            {"default_run_setting": {**DEFAULT_RUN_SETTING, "cacheId": "7654321"}},
        ],
    )
    def test_processed_with_other_settings(
        self, local: LocalHealthOmics, new_task_context: NewContext, change: dict[str, Any]
    ) -> None:
        first = start(new_task_context())
        finish(local, first)
        context = new_task_context()
        second = start(context, **change)
        assert second != first
        assert not context["ti"].xcoms["batch"]["reattached"]
        assert start(new_task_context(), **change) == second
        finish(local, second)
        assert start(new_task_context()) == first, "what is processed already is not paid for again"

    def test_other_tags_of_the_batch_are_no_other_settings(
        self, local: LocalHealthOmics, new_task_context: NewContext
    ) -> None:
        first = start(new_task_context(), tags={"owner": "old"})
        assert start(new_task_context(), tags={"owner": "new"}) == first

    @pytest.mark.parametrize("status", ["active", "processed"])
    def test_a_lost_digest_is_never_paid_for_twice(
        self, local: LocalHealthOmics, new_task_context: NewContext, status: str
    ) -> None:
        first = start(new_task_context())
        hook = aws()
        if status == "processed":
            finish(local, first)
        hook.untag_resource(resource_arn=hook.get_batch(batch_id=first)["arn"], tag_keys=[DIGEST_TAG])
        with pytest.raises(BatchConflictError, match=f"does not show its tag {DIGEST_TAG}"):
            start(new_task_context())
        assert len(batches()) == 1

    @pytest.mark.parametrize("forget", [False, True])
    @pytest.mark.parametrize(
        ("after", "token"), [("CREATING", "starts_again"), ("PENDING", "replays"), ("SUBMITTING", "starts_again")]
    )
    def test_failed_before_a_run_was_started(
        self, local: LocalHealthOmics, new_task_context: NewContext, after: Any, token: Any, forget: bool
    ) -> None:
        local.settings.failed_batch_token = token
        local.faults.fail_batch(after=after, times=2)
        tokens, started = [], []
        for _ in range(3):
            context = new_task_context()
            started.append(start(context))
            tokens.append(context["ti"].xcoms["batch"]["request_id"])
            local.clock.advance(1_000)
            if forget:
                local.forget_tokens()
        assert len(set(started)) == 3
        assert len(set(tokens)) == (3 if token == "replays" and not forget else 1)
        assert [batch["status"] for batch in batches()] == ["FAILED", "FAILED", "PROCESSED"]
        assert start(new_task_context()) == started[-1]

    @both_tokens
    @pytest.mark.parametrize("change", [{}, {"tags": {"owner": "new"}}, {"run_settings": OTHER}])
    def test_a_slow_try_beside_the_recovery_of_a_failed_batch(
        self, local: LocalHealthOmics, new_task_context: NewContext, token: Any, change: dict[str, Any]
    ) -> None:
        """The slow try has found no batch. Then other tries start a batch that fails, and a second batch.

        If the second batch has other settings and the service starts a FAILED batch again, two batches are active. The
        documentation lists this as a limit.
        """
        local.settings.failed_batch_token = token
        local.settings.run_running_seconds = 100_000
        local.faults.fail_batch(after="PENDING")
        slow, others = operator(), []

        def overtake(**_: Any) -> None:
            if not others:
                others.append(start(new_task_context()))
                local.clock.advance(1_000)
                others.append(start(new_task_context(), **change))

        slow.hook.conn.meta.events.register("provide-client-params.omics.StartRunBatch", overtake)
        if change.get("run_settings") and token == "starts_again":
            assert slow.execute(new_task_context()) not in others
            assert [batch["status"] for batch in batches()] == ["FAILED", "CREATING", "CREATING"]
            return
        if change.get("run_settings"):
            with pytest.raises(BatchConflictError, match="it was started with other settings"):
                slow.execute(new_task_context())
        else:
            assert slow.execute(new_task_context()) == others[-1]
        assert [batch["status"] for batch in batches()].count("FAILED") == len(batches()) - 1 == 1

    @pytest.mark.parametrize("change", [{"tags": {"owner": "new"}}, {"run_settings": OTHER}])
    def test_a_changed_request_after_a_failed_batch_whose_token_replays(
        self, local: LocalHealthOmics, new_task_context: NewContext, change: dict[str, Any]
    ) -> None:
        local.settings.failed_batch_token = "replays"
        local.faults.fail_batch(after="PENDING")
        start(new_task_context())
        local.clock.advance(1_000)
        before = local.clock.now()
        start(new_task_context(), **change)
        assert [batch["status"] for batch in batches()] == ["FAILED", "CREATING"]
        seconds = (local.clock.now() - before).total_seconds()
        if "run_settings" in change:
            assert (local.calls["StartRunBatch"], seconds < 60) == (2, True), "the old token is for the old settings"
        else:
            assert (local.calls["StartRunBatch"], seconds >= 300) == (3, True), "another try may have used it"

    def test_failed_without_any_counts(self, local: LocalHealthOmics, new_task_context: NewContext) -> None:
        kwargs = {"run_settings": settings_of(101), "settings_s3_prefix": PREFIX}
        local.faults.fail_batch(after="PENDING")
        first = start(new_task_context(), **kwargs)
        local.clock.advance(1_000)
        assert "submissionSummary" not in aws().get_batch(batch_id=first)
        assert start(new_task_context(), **kwargs) != first

    def test_a_replay_of_a_failed_batch_that_is_not_listed(
        self, local: LocalHealthOmics, new_task_context: NewContext, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        local.faults.fail_batch()
        first = start(new_task_context())
        local.clock.advance(1_000)
        with monkeypatch.context() as patch:
            patch.setattr(OmicsCacheHook, "list_batch", lambda self, **_: iter([]))
            second = start(new_task_context())
        assert second != first
        assert len(batches()) == 2

    @both_tokens
    def test_a_batch_that_keeps_failing_at_once(
        self, local: LocalHealthOmics, task_context: dict[str, Any], token: Any
    ) -> None:
        local.settings.creating_seconds = 0
        local.settings.failed_batch_token = token
        local.faults.fail_batch("Invalid JSON format in run configurations", after="CREATING", times=None)
        with pytest.raises(BatchFailedError, match=r"failed 3 times .*Invalid JSON format"):
            start(task_context)
        assert len(batches()) == 3

    @pytest.mark.parametrize("stale", [False, True])
    @pytest.mark.parametrize("change", [{}, {"run_settings": OTHER}])
    def test_failed_after_runs_were_started(
        self, local: LocalHealthOmics, new_task_context: NewContext, stale: bool, change: dict[str, Any]
    ) -> None:
        local.faults.fail_batch("It broke", after="SUBMITTING", started_runs=1)
        first = start(new_task_context())
        local.clock.advance(1_000)
        if stale:
            local.faults.stale_counts(seconds=1_000)
        with pytest.raises(
            BatchFailedError, match=r"FAILED \(It broke\), but at least 1 of its runs were started"
        ) as caught:
            start(new_task_context(), **change)
        assert (caught.value.batch_id, caught.value.reason) == (first, "It broke")
        assert len(batches()) == 1

    @pytest.mark.parametrize("seconds", [0, 1_000])
    @pytest.mark.parametrize("change", [{}, {"run_settings": OTHER}])
    def test_cancelled(
        self, local: LocalHealthOmics, new_task_context: NewContext, seconds: float, change: dict[str, Any]
    ) -> None:
        first = start(new_task_context())
        local.clock.advance(2)
        aws().cancel_run_batch(batch_id=first)
        local.clock.advance(seconds)
        with pytest.raises(BatchCancelledError, match=r"it was cancelled\. Set rerun_key to start a new batch"):
            start(new_task_context(), **change)
        assert len(batches()) == 1
        assert start(new_task_context(), rerun_key="2") != first

    @pytest.mark.parametrize("seconds", [0, 1_000])
    @pytest.mark.parametrize("fails", [False, True])
    def test_cleaned_up(
        self, local: LocalHealthOmics, new_task_context: NewContext, seconds: float, fails: bool
    ) -> None:
        first = start(new_task_context())
        finish(local, first)
        if fails:
            local.faults.fail_delete(["sample-0"])
        aws().delete_run_batch(batch_id=first)
        local.clock.advance(seconds)
        with pytest.raises(BatchDeletedError, match=r"its runs were deleted\. Set rerun_key"):
            start(new_task_context())
        assert len(batches()) == 1

    @pytest.mark.parametrize("older", ["runs deleted", "cancelled", "failed after runs", "without a digest"])
    @pytest.mark.parametrize("newest", ["processed", "failed before a run"])
    def test_only_the_newest_batch_of_the_name_refuses(
        self, local: LocalHealthOmics, task_context: dict[str, Any], older: str, newest: str
    ) -> None:
        """An older batch only counts for the generation, which makes the new batch's token."""
        if older == "failed after runs":
            local.faults.fail_batch(after="SUBMITTING", started_runs=1)
        tags = {GENERATION_TAG: "4"} if older == "without a digest" else {DIGEST_TAG: "a", GENERATION_TAG: "4"}
        old = start_batch_of_the_name(tags)
        if older == "cancelled":
            local.clock.advance(2)
            aws().cancel_run_batch(batch_id=old)
        local.clock.advance(1_000)
        ended = aws().get_batch(batch_id=old)["status"]
        assert ended == {"cancelled": "CANCELLED", "failed after runs": "FAILED"}.get(older, "PROCESSED")
        if older == "runs deleted":
            aws().delete_run_batch(batch_id=old)
        if newest == "failed before a run":
            local.faults.fail_batch(after="PENDING")
        new = start_batch_of_the_name({DIGEST_TAG: "b", GENERATION_TAG: "1"})
        local.clock.advance(1_000)
        batch_id = start(task_context)
        assert batch_id not in {old, new}
        assert aws().get_batch(batch_id=batch_id)["tags"][GENERATION_TAG] == "5"
        assert task_context["ti"].xcoms["batch"]["reattached"] is False

    def test_an_older_batch_with_the_same_settings_is_not_paid_for_again(
        self, local: LocalHealthOmics, new_task_context: NewContext
    ) -> None:
        """The newest batch is to be replaced, and the runs of one in between were deleted."""
        first = start(new_task_context())
        finish(local, first)
        between = start(new_task_context(), run_settings=self.OTHER)
        finish(local, between)
        local.faults.fail_batch(after="PENDING")
        newest = start(new_task_context(), run_settings=settings_of(4))
        local.clock.advance(1_000)
        aws().delete_run_batch(batch_id=between)
        local.clock.advance(1_000)
        context = new_task_context()
        assert start(context) == first
        assert context["ti"].xcoms["batch"]["reattached"] is True
        assert {batch["id"] for batch in batches()} == {first, between, newest}


@needs_batches
class TestLateAndLostFacts:
    """Facts about an earlier try's batch that are late or missing must not start a run twice."""

    OWN_FILE = f"s3://{BUCKET}/own.json"

    @staticmethod
    def deny_reading(task: StartRunBatchOperator) -> StartRunBatchOperator:
        def deny(request: Any, **_: Any) -> Any:
            return answer(request, 403)

        task._s3.meta.events.register_first("before-send.s3.HeadObject", deny)
        return task

    @pytest.mark.parametrize("status", ["active", "processed"])
    @pytest.mark.parametrize("denied", [1, 2])
    def test_a_file_that_one_try_may_not_read_is_the_same_file(
        self, local: LocalHealthOmics, new_task_context: NewContext, status: str, denied: int
    ) -> None:
        s3().put_object(Bucket=BUCKET, Key="own.json", Body=json.dumps(settings_of(3)))
        tries = [operator(run_settings=self.OWN_FILE) for _ in range(2)]
        self.deny_reading(tries[denied - 1])
        first = tries[0].execute(new_task_context())
        assert (ETAG_TAG in aws().get_batch(batch_id=first)["tags"]) is (denied == 2)
        if status == "processed":
            finish(local, first)
        assert tries[1].execute(new_task_context()) == first

    @pytest.mark.parametrize("denied", [1, 2])
    def test_two_tries_at_once_of_which_one_may_not_read_the_file(
        self, local: LocalHealthOmics, new_task_context: NewContext, denied: int
    ) -> None:
        s3().put_object(Bucket=BUCKET, Key="own.json", Body=json.dumps(settings_of(3)))
        tries = [operator(run_settings=self.OWN_FILE) for _ in range(2)]
        self.deny_reading(tries[denied - 1])
        started = []

        def start_second(**_: Any) -> None:
            if not started:
                started.append("")
                started[0] = tries[1].execute(new_task_context())

        tries[0].hook.conn.meta.events.register("provide-client-params.omics.StartRunBatch", start_second)
        assert [tries[0].execute(new_task_context())] == started
        assert len(batches()) == 1

    def test_a_changed_file_of_a_processed_batch_is_a_new_request(
        self, local: LocalHealthOmics, new_task_context: NewContext
    ) -> None:
        started = []
        for count in (3, 4):
            s3().put_object(Bucket=BUCKET, Key="own.json", Body=json.dumps(settings_of(count)))
            started.append(start(new_task_context(), run_settings=self.OWN_FILE))
            finish(local, started[-1])
        assert len(set(started)) == 2
        with (
            changed_answers("ListBatch", {"items": []}),
            pytest.raises(OmicsApiError, match="a batch that is not listed yet"),
        ):
            start(new_task_context(), run_settings=self.OWN_FILE)
        assert start(new_task_context(), run_settings=self.OWN_FILE) == started[-1]
        assert len(batches()) == 2

    @pytest.mark.parametrize("refusal", ["ConflictException", None])
    def test_an_empty_listing_beside_a_living_second_batch_leads_to_no_third(
        self, local: LocalHealthOmics, new_task_context: NewContext, refusal: str | None
    ) -> None:
        finish(local, start(new_task_context()))
        second = start(new_task_context(), run_settings=settings_of(3))
        local.settings.changed_request_error = refusal
        with changed_answers("ListBatch", {"items": []}):
            if refusal:
                with pytest.raises(OmicsApiError, match="a batch that is not listed yet"):
                    start(new_task_context(), run_settings=settings_of(3))
            else:
                assert start(new_task_context(), run_settings=settings_of(3)) == second
        assert start(new_task_context(), run_settings=settings_of(3)) == second
        assert len(batches()) == 2

    @pytest.mark.parametrize("refusal", ["ConflictException", "ValidationException", None])
    def test_other_settings_while_the_list_lags_start_no_second_batch(
        self,
        local: LocalHealthOmics,
        new_task_context: NewContext,
        monkeypatch: pytest.MonkeyPatch,
        refusal: str | None,
    ) -> None:
        local.settings.changed_request_error = refusal
        local.settings.batch_visible_after = 60
        local.settings.run_running_seconds = 10_000
        die(monkeypatch, OmicsCacheHook, "start_run_batch")
        with pytest.raises(KeyboardInterrupt):
            start(new_task_context())
        local.clock.advance(5)
        with pytest.raises(BatchConflictError, match="it was started with other settings"):
            start(new_task_context(), run_settings=settings_of(3))
        assert len(batches()) == 1

    @pytest.mark.parametrize("member", ["name", "createdAt"])
    @pytest.mark.parametrize("change", [{}, {"run_settings": settings_of(3)}])
    def test_rows_of_the_list_may_lack_members(
        self, local: LocalHealthOmics, new_task_context: NewContext, member: str, change: dict[str, Any]
    ) -> None:
        local.faults.fail_batch(after="PENDING")
        start(new_task_context())
        local.clock.advance(1_000)
        second = start(new_task_context())
        local.clock.advance(2)
        aws().cancel_run_batch(batch_id=second)
        local.clock.advance(100)

        def remove(parsed: dict[str, Any], **_: Any) -> None:
            for row in parsed["items"]:
                if row["id"] == second:
                    del row[member]

        task = operator(**change)
        task.hook.conn.meta.events.register("after-call.omics.ListBatch", remove)
        with pytest.raises(BatchCancelledError, match=f"Batch {second} "):
            task.execute(new_task_context())
        assert len(batches()) == 2

    def test_late_counts_and_listings_of_a_failed_batch(
        self, local: LocalHealthOmics, new_task_context: NewContext
    ) -> None:
        local.faults.fail_batch("It broke", after="SUBMITTING", started_runs=3)
        start(new_task_context(), run_settings=settings_of(5))
        local.clock.advance(10)
        local.faults.stale_counts(seconds=60)
        local.faults.lagging_listing(rows=3, seconds=60)
        assert list(aws().list_runs_in_batch(batch_id=batches()[0]["id"])) == []
        with pytest.raises(BatchFailedError, match="at least 3 of its runs were started"):
            start(new_task_context(), run_settings=settings_of(5))
        assert len(batches()) == 1

    @pytest.mark.parametrize("code", ["ConflictException", "ValidationException"])
    @pytest.mark.parametrize("change", ["tags", "order"])
    def test_a_refused_token_while_the_list_lags(
        self,
        local: LocalHealthOmics,
        new_task_context: NewContext,
        monkeypatch: pytest.MonkeyPatch,
        code: str,
        change: str,
    ) -> None:
        local.settings.changed_request_error = code
        local.settings.batch_visible_after = 200
        die(monkeypatch, OmicsCacheHook, "start_run_batch")
        with pytest.raises(KeyboardInterrupt):
            start(new_task_context())
        changed = {"tags": {"owner": "new"}} if change == "tags" else {"run_settings": settings_of(2)[::-1]}
        context = new_task_context()
        start(context, **changed)
        assert context["ti"].xcoms["batch"]["reattached"]
        assert len(batches()) == 1

    def test_a_list_that_lags_longer_fails_only_the_try(
        self, local: LocalHealthOmics, new_task_context: NewContext, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        local.settings.changed_request_error = "ValidationException"
        local.settings.batch_visible_after = 1_000
        die(monkeypatch, OmicsCacheHook, "start_run_batch")
        with pytest.raises(KeyboardInterrupt):
            start(new_task_context())
        with pytest.raises(OmicsApiError, match="a batch that is not listed yet") as caught:
            start(new_task_context(), tags={"owner": "new"})
        assert not isinstance(caught.value, OmicsRequestError), "a retry can succeed"
        local.clock.advance(1_000)
        start(new_task_context(), tags={"owner": "new"})
        assert len(batches()) == 1

    def test_a_refusal_of_another_member_fails_at_once(
        self, local: LocalHealthOmics, task_context: dict[str, Any]
    ) -> None:
        local.faults.error("StartRunBatch", code="ValidationException", message="'roleArn' cannot be assumed")
        before = local.clock.now()
        with pytest.raises(OmicsRequestError, match="roleArn"):
            start(task_context)
        assert local.clock.now() == before

    @pytest.mark.parametrize("evidence", ["counts", "rows", "status"])
    def test_a_cancelled_batch_that_failed_is_not_restarted(
        self, local: LocalHealthOmics, new_task_context: NewContext, evidence: str
    ) -> None:
        local.faults.fail_batch("It broke", after="PENDING")
        first = start(new_task_context())
        local.clock.advance(10)
        statuses = ["FAILED", "STOPPING", "FAILED"]

        def change(parsed: dict[str, Any], **_: Any) -> None:
            if evidence == "counts":
                parsed["submissionSummary"] = {"successfulCancelSubmissionCount": 2}
            elif evidence == "status" and statuses:
                parsed["status"] = statuses.pop(0)

        def list_cancelled(params: dict[str, Any], parsed: dict[str, Any] | None = None, **_: Any) -> None:
            if evidence == "rows":
                is_asked = params["query_string"].get("submissionStatus") == "CANCEL_SUCCESS"
                rows[:] = [{"runSettingId": "sample-0", "submissionStatus": "CANCEL_SUCCESS"}] if is_asked else []

        rows: list[dict[str, Any]] = []

        def add_rows(parsed: dict[str, Any], **_: Any) -> None:
            parsed["runs"] = rows or parsed["runs"]

        task = operator()
        events = task.hook.conn.meta.events
        events.register("after-call.omics.GetBatch", change)
        events.register("before-call.omics.ListRunsInBatch", list_cancelled)
        events.register("after-call.omics.ListRunsInBatch", add_rows)
        with pytest.raises(BatchCancelledError, match=f"Batch {first} .*it was cancelled"):
            task.execute(new_task_context())
        assert len(batches()) == 1

    @pytest.mark.parametrize("times", [1, 3])
    def test_an_answer_without_tags_is_asked_for_again(
        self, local: LocalHealthOmics, new_task_context: NewContext, times: int
    ) -> None:
        first = start(new_task_context())
        left = times

        def remove(parsed: dict[str, Any], **_: Any) -> None:
            nonlocal left
            if left:
                left -= 1
                parsed.pop("tags")

        task = operator()
        task.hook.conn.meta.events.register("after-call.omics.GetBatch", remove)
        assert task.execute(new_task_context()) == first
        assert left == 0

    def test_a_network_that_is_down_for_25_seconds(self, local: LocalHealthOmics, task_context: dict[str, Any]) -> None:
        task = operator(botocore_config=ONE_ATTEMPT)
        back = local.clock.elapsed() + 25

        def refuse(request: Any, **_: Any) -> None:
            if local.clock.elapsed() < back:
                raise EndpointConnectionError(endpoint_url=request.url)

        task.hook.conn.meta.events.register_first("before-send.omics", refuse)
        task.execute(task_context)
        assert len(batches()) == 1


@needs_batches
class TestUnknownStatus:
    """A batch whose status no version of the package knows, or that has none."""

    STATUS = pytest.mark.parametrize(
        ("status", "shown"), [("RUNS_ARCHIVED", "is RUNS_ARCHIVED"), (None, "is without a status")]
    )

    @STATUS
    def test_its_batch_is_taken(
        self,
        local: LocalHealthOmics,
        new_task_context: NewContext,
        capsys: pytest.CaptureFixture[str],
        caplog: pytest.LogCaptureFixture,
        status: str | None,
        shown: str,
    ) -> None:
        caplog.set_level("INFO")
        with changed_answers("GetBatch", {"status": status}):
            started = start(new_task_context())
            context = new_task_context()
            assert start(context) == started
        assert context["ti"].xcoms["batch"]["status"] == status
        lines = [line for line in (caplog.text + capsys.readouterr().out).splitlines() if f"atch {started} (" in line]
        assert any(f") of an earlier try {shown}; continuing with it" in line for line in lines)
        assert all("None" not in line for line in lines)

    @STATUS
    def test_other_settings_are_refused(
        self, local: LocalHealthOmics, new_task_context: NewContext, status: str | None, shown: str
    ) -> None:
        start(new_task_context())
        with (
            changed_answers("GetBatch", {"status": status}),
            pytest.raises(BatchConflictError, match=f"of this task {shown}, and it was started with other") as caught,
        ):
            start(new_task_context(), run_settings=settings_of(3))
        assert "None" not in str(caught.value)
        assert caught.value.status == status
        assert len(batches()) == 1

    @pytest.mark.parametrize(
        ("fault", "text"),
        [
            ({"after": "SUBMITTING", "started_runs": 1}, r"is FAILED \(no reason given\), but at least 1"),
            ({"after": "CREATING", "times": None}, r"failed 3 times .*: no reason given$"),
        ],
    )
    def test_a_failure_without_a_reason(
        self, local: LocalHealthOmics, new_task_context: NewContext, fault: dict[str, Any], text: str
    ) -> None:
        local.settings.creating_seconds = 0
        local.faults.fail_batch(**fault)

        def start_twice() -> None:
            start(new_task_context())
            local.clock.advance(1_000)
            start(new_task_context())

        with changed_answers("GetBatch", {"failureReason": None}), pytest.raises(BatchFailedError, match=text):
            start_twice()


@needs_batches
class TestRequestId:
    def test_it_takes_the_place_of_the_derived_one(self, local: LocalHealthOmics, new_task_context: NewContext) -> None:
        contexts = [new_task_context() for _ in range(2)]
        started = {start(context, request_id="my-own") for context in contexts}
        assert len(started) == 1
        assert {context["ti"].xcoms["batch"]["request_id"] for context in contexts} == {"my-own"}

    def test_it_may_be_a_number(self, local: LocalHealthOmics, task_context: dict[str, Any]) -> None:
        start(task_context, request_id=7)
        assert task_context["ti"].xcoms["batch"]["request_id"] == "7"

    def test_one_that_belongs_to_a_failed_batch(self, local: LocalHealthOmics, new_task_context: NewContext) -> None:
        local.faults.fail_batch()
        failed = start(new_task_context(), request_id="recovered")
        local.clock.advance(1_000)
        recovered = start(new_task_context(), request_id="recovered")
        assert [batch["id"] for batch in batches()] == [failed, recovered]

    def test_one_that_stays_with_a_failed_batch(self, local: LocalHealthOmics, new_task_context: NewContext) -> None:
        local.settings.failed_batch_token = "replays"
        local.faults.fail_batch()
        start(new_task_context(), request_id="my-own")
        local.clock.advance(1_000)
        with pytest.raises(BatchConflictError, match=r"request_id 'my-own' belongs to batch .* FAILED"):
            start(new_task_context(), request_id="my-own")
        assert len(batches()) == 1
        local.forget_tokens()
        start(new_task_context(), request_id="my-own")
        assert len(batches()) == 2

    def test_one_that_belongs_to_another_task(self, local: LocalHealthOmics, new_task_context: NewContext) -> None:
        start(new_task_context(), request_id="my-own")
        other = new_task_context()
        other["ti"].task_id = "other"
        with pytest.raises(OmicsApiError, match="or set another request_id"):
            start(other, request_id="my-own")
        assert len(batches()) == 1


@needs_batches
class TestBadInput:
    @pytest.mark.parametrize(
        ("kwargs", "parameter", "text"),
        [
            (
                {"run_settings": settings_of(30) * 2},
                "run_settings[30].runSettingId",
                "must be unique .30 settings have this error",
            ),
            (
                {"run_settings": settings_of(101)},
                "settings_s3_prefix",
                r"must be an s3:// URI for more than 100 settings; run_settings has 101; got None",
            ),
            ({"run_settings": [settings_of(1)[0]] * 100_001}, "run_settings", "at most 100,000 .*100,001"),
            (
                {"run_settings": settings_of(1, parameters={"a": {1}})},
                "run_settings[0].parameters",
                "only JSON values; got",
            ),
            ({"run_settings": settings_of(1, cacheId="1")}, "run_settings[0]", "botocore .*upgrade boto3.*'cacheId'"),
            (
                {"run_settings": None},
                "run_settings",
                "must be a list of dicts or an s3:// URI.*AirflowSkipException in the upstream task; got None",
            ),
            ({"run_settings": '[{"runSettingId": "a"}]'}, "run_settings", "must be a list of dicts or an s3:// URI"),
            ({"run_settings": "settings.json"}, "run_settings", "must be a list of dicts or an s3:// URI"),
            ({"run_settings": "s3://omics-settings"}, "run_settings", "must be s3://bucket/key"),
            ({"run_settings": "s3://omics-settings/no.json"}, "run_settings", "must be an object that exists in S3"),
            ({"run_settings": "s3://no-such-bucket/no.json"}, "run_settings", "must be an object that exists in S3"),
            ({"run_settings": []}, "run_settings", "must have at least one setting"),
            (
                {"run_settings": settings_of(101), "settings_s3_prefix": "s3://no-such-bucket/a"},
                "settings_s3_prefix",
                "must be in a bucket that exists; got 's3://no-such-bucket/a'$",
            ),
            ({"settings_s3_prefix": "omics-settings/a"}, "settings_s3_prefix", "must be an s3:// URI with a bucket"),
            ({"settings_s3_prefix": "s3:///a"}, "settings_s3_prefix", "must be an s3:// URI with a bucket"),
            (
                {"run_settings": '  [{"runSettingId": "secret", "parameters": {}}]'},
                "run_settings",
                r"XCom itself \(task.output\) or set .*; got 'str of [0-9]+ characters'",
            ),
            ({"run_settings": "{'runSettingId': 'secret'}"}, "run_settings", "set render_template_as_native_obj=True"),
            (
                {"run_settings": settings_of(101), "settings_s3_prefix": f"{PREFIX}{'a' * 700}"},
                "settings_s3_prefix",
                "must have at most 680 characters",
            ),
            (
                {"run_settings": settings_of(101), "settings_s3_prefix": PREFIX, "s3_extra_args": {"Key": "mine"}},
                "s3_extra_args",
                r"must have only keys of S3 uploads.*got \['Key'\]",
            ),
            (
                {"run_settings": settings_of(101), "settings_s3_prefix": PREFIX, "s3_extra_args": {"Acl": "private"}},
                "s3_extra_args",
                r"must have only keys of S3 uploads.*got \['Acl'\]",
            ),
            (
                {"run_settings": settings_of(101), "settings_s3_prefix": PREFIX, "s3_extra_args": {"ACL": 7}},
                "s3_extra_args",
                "must have values of the types that PutObject takes",
            ),
            (
                {"default_run_setting": {**DEFAULT_RUN_SETTING, "cacheID": "1"}},
                "default_run_setting",
                r"has the unknown key 'cacheID' \(did you mean 'cacheId'\?\)$",
            ),
            (
                {"default_run_setting": {"workflow_id": "1", "role_arn": "x"}},
                "default_run_setting",
                r"the unknown key 'workflow_id' \(did you mean 'workflowId'\?\); also has the unknown key 'role_arn'",
            ),
            (
                {"default_run_setting": {**DEFAULT_RUN_SETTING, "colour": "1"}},
                "default_run_setting",
                f"botocore {botocore.__version__} does not know in DefaultRunSetting: .* upgrade boto3.*got 'colour'",
            ),
            ({"default_run_setting": "{}"}, "default_run_setting", "must be a dict"),
            ({"default_run_setting": {"workflowId": "1"}}, "default_run_setting.roleArn", "is required"),
            (
                {"default_run_setting": {**DEFAULT_RUN_SETTING, "cacheId": None}},
                "default_run_setting.cacheId",
                "must be an id of 1 to 18 digits; got None",
            ),
            (
                {"default_run_setting": {"workflowId": "1", "roleArn": "arn:aws:iam::1:role/x"}},
                "run_settings[0].outputUri",
                "must be given here or in default_run_setting",
            ),
            ({"tags": {"a": 1}}, "tags", "has an invalid value: it must be a string of 0 to 256 characters; got 1"),
            ({"tags": {"airflow-dag-id": "x", "a": "b"}}, "tags", r"operator sets; got \['airflow-dag-id'\]"),
            ({"tags": {DIGEST_TAG: "x"}}, "tags", f"must not have keys that the operator sets; .*{DIGEST_TAG}"),
            ({"run_tags": ["a"]}, "run_tags", "must be a dict"),
            ({**STAGED, "tags": tags_of(49)}, "tags", "must have at most 42 entries; got '49 entries'"),
            ({**STAGED, "tags": {"aws:a": "b"}}, "tags", "must not have keys that begin with aws:"),
            ({**STAGED, "run_tags": {"aws:a": "b"}}, "run_tags", "must not have keys that begin with aws:"),
            (
                {
                    **STAGED,
                    "default_run_setting": {**DEFAULT_RUN_SETTING, "runTags": {"project": "a", "lab": "7"}},
                    "run_tags": tags_of(49),
                },
                "run_tags",
                "must have at most 50 entries, together with the tags that the resource has; got '51 entries'",
            ),
            (
                {**STAGED, "default_run_setting": {**DEFAULT_RUN_SETTING, "runTags": tags_of(51)}},
                "default_run_setting.runTags",
                "must have at most 50 entries; got '51 entries'",
            ),
            ({"request_id": "x" * 129}, "request_id", "must be a token of 1 to 128 characters"),
            ({"request_id": "None"}, "request_id", "must be a token of 1 to 128 characters; got 'None'"),
        ],
    )
    def test_one_error_and_nothing_half_done(
        self,
        local: LocalHealthOmics,
        task_context: dict[str, Any],
        kwargs: dict[str, Any],
        parameter: str,
        text: str,
    ) -> None:
        with pytest.raises(OmicsParameterError, match=text) as caught:
            start(task_context, **kwargs)
        assert caught.value.parameter == parameter
        assert str(caught.value).startswith(f"{parameter} ")
        assert "secret" not in str(caught.value)
        assert local.calls["StartRunBatch"] == 0
        assert staged_keys() == []
        assert task_context["ti"].xcoms == {}

    @pytest.mark.parametrize("bucket", ["Omics", "o_mics", "ab", "a" * 64, "omics ", "-omics", "omics."])
    @pytest.mark.parametrize("parameter", ["settings_s3_prefix", "run_settings"])
    def test_a_name_that_no_bucket_has(
        self, local: LocalHealthOmics, task_context: dict[str, Any], parameter: str, bucket: str
    ) -> None:
        rule = f"{parameter} must have a bucket name of 3 to 63 lower case letters, digits, dots and hyphens; got 's3://{bucket}/"
        with pytest.raises(OmicsParameterError, match=rule):
            start(task_context, **{**STAGED, "s3_extra_args": {"ACL": "private"}, parameter: f"s3://{bucket}/own.json"})
        assert local.calls.total() == 0

    def test_a_session_policy_is_nowhere_to_be_read(
        self, local: LocalHealthOmics, task_context: dict[str, Any], caplog: pytest.LogCaptureFixture
    ) -> None:
        for policy in ("secret" * 1_000, {"Statement": "secret"}):
            with pytest.raises(OmicsParameterError) as caught:
                start(task_context, default_run_setting={**DEFAULT_RUN_SETTING, "sessionPolicy": policy})
            assert "secret" not in str(caught.value)
        assert "secret" not in caplog.text

    def test_what_the_service_refuses_at_once_is_passed_on(
        self, local: LocalHealthOmics, task_context: dict[str, Any]
    ) -> None:
        with pytest.raises(OmicsRequestError, match="roleArn"):
            start(task_context, default_run_setting={**DEFAULT_RUN_SETTING, "roleArn": "omics"})
        assert batches() == []


class TestAnywhere:
    """What holds with an old botocore too."""

    def test_an_old_botocore(
        self, task_context: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Any
    ) -> None:
        load = botocore.loaders.Loader.load_service_model

        def without_batches(self: Any, service_name: str, type_name: str, api_version: str | None = None) -> Any:
            model = load(self, service_name, type_name, api_version)
            if (service_name, type_name) != ("omics", "service-2"):
                return model
            operations = {name: value for name, value in model["operations"].items() if "Batch" not in name}
            shapes = {name: value for name, value in model["shapes"].items() if "Batch" not in name}
            return {**model, "operations": operations, "shapes": shapes}

        monkeypatch.setattr(botocore.loaders.Loader, "load_service_model", without_batches)
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", "aws://")
        with pytest.raises(OmicsVersionError, match=r"boto3>=1\.42\.74"):
            operator(run_settings=settings_of(101), settings_s3_prefix=PREFIX).execute(task_context)

    def test_no_region(self, task_context: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
        monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", "aws://")
        with pytest.raises(OmicsApiError, match="CreateClient failed: NoRegionError"):
            operator().execute(task_context)

    def test_everything_but_nothing_of_the_bases_is_templated(self) -> None:
        assert set(StartRunBatchOperator.template_fields) == {
            "aws_conn_id",
            "batch_name",
            "default_run_setting",
            "max_failed_runs",
            "region_name",
            "request_id",
            "rerun_key",
            "run_settings",
            "run_tags",
            "runs_s3_uri",
            "s3_conn_id",
            "s3_extra_args",
            "settings_s3_prefix",
            "tags",
            "verify",
        }
        task = operator()
        assert all(hasattr(task, name) for name in task.template_fields)
        assert not task.template_ext

    def test_it_can_be_mapped(self) -> None:
        with DAG("cohorts", schedule=None, default_args={"s3_conn_id": "lab"}) as dag:
            StartRunBatchOperator.partial(task_id="mapped", default_run_setting=DEFAULT_RUN_SETTING).expand(
                run_settings=[settings_of(1), settings_of(2)]
            )
            operator()
        assert set(dag.task_ids) == {"mapped", "start_batch"}
        assert dag.get_task("start_batch").s3_conn_id == "lab"

    def test_templates_are_rendered_deep_inside(self) -> None:
        task = operator(
            default_run_setting={**DEFAULT_RUN_SETTING, "cacheId": "{{ cache }}"},
            run_settings=[{"runSettingId": "a", "parameters": {"file": "s3://ref/params.json", "n": "{{ n }}"}}],
            run_tags={"run": "{{ n }}"},
        )
        task.render_template_fields({"cache": "77", "n": "5"})
        assert task.default_run_setting["cacheId"] == "77"
        assert task.run_settings[0]["parameters"] == {"file": "s3://ref/params.json", "n": "5"}
        assert task.run_tags == {"run": "5"}
