"""The AWS CLI talks to the local HealthOmics, with nothing but an endpoint and the host-prefix switch."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from botocore import xform_name

from tests.conftest import needs_batches
from tests.local.each_operation import call_each_operation

if TYPE_CHECKING:
    from airflow_provider_omics_cache.local import LocalHealthOmicsServer

AWS_CLI = os.environ.get("AWS_CLI", "")
ACCOUNT = "123456789012"
LOCATION = "s3://cli/cache/"
DEFAULT_RUN_SETTING = f"workflowId=1234567,roleArn=arn:aws:iam::{ACCOUNT}:role/omics,outputUri=s3://cli/runs/"
BATCH = ("start-run-batch", "--default-run-setting", DEFAULT_RUN_SETTING, "--batch-run-settings")

pytestmark = [needs_batches, pytest.mark.skipif(not AWS_CLI, reason="AWS_CLI is not set (make test does)")]


class Cli:
    """The AWS CLI.

    :param process: runs its commands.
    :param environment: where they find the service.
    """

    def __init__(self, process: subprocess.Popen[str], environment: dict[str, str]) -> None:
        self.environment = environment
        self._process = process

    def run(self, *arguments: str) -> tuple[int, str, str]:
        """Run ``aws``; give exit code, output and errors."""
        assert self._process.stdin
        assert self._process.stdout
        request = {"arguments": arguments, "environment": self.environment}
        print(json.dumps(request), file=self._process.stdin, flush=True)
        answer = json.loads(self._process.stdout.readline())
        return answer["code"], answer["out"], answer["err"]

    def text(self, *arguments: str) -> str:
        """Run ``aws omics``; give its output."""
        code, out, err = self.run("omics", *arguments)
        assert (code, err) == (0, "")
        return out.strip()

    def __call__(self, *arguments: str) -> Any:
        """Run ``aws omics``; give the answer, None if it says nothing."""
        out = self.text(*arguments, "--output", "json")
        return json.loads(out) if out else None

    def error(self, *arguments: str) -> str:
        """Run ``aws omics``, which has to fail; give what it says."""
        code, out, err = self.run("omics", *arguments)
        assert code != 0
        assert out == ""
        return err.strip()


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[subprocess.Popen[str]]:
    command = [str(Path(AWS_CLI).parent / "python"), str(Path(__file__).with_name("aws_cli_process.py"))]
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path_factory.mktemp("home"))}
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield process
        assert process.stdin
        process.stdin.close()
        assert process.wait(10) == 0


@pytest.fixture
def local(local_healthomics_server: LocalHealthOmicsServer) -> LocalHealthOmicsServer:
    local_healthomics_server.create_bucket("cli")
    return local_healthomics_server


@pytest.fixture
def aws(local: LocalHealthOmicsServer, process: subprocess.Popen[str]) -> Cli:
    environment = {
        "AWS_ENDPOINT_URL": local.url,
        "AWS_DISABLE_HOST_PREFIX_INJECTION": "true",
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
    }
    return Cli(process, environment)


def create_cache(aws: Cli, *arguments: str) -> Any:
    return aws("create-run-cache", "--cache-s3-location", LOCATION, *arguments)


def start_batch(aws: Cli, *arguments: str, runs: int = 3) -> str:
    settings = {"inlineSettings": [{"runSettingId": f"s{number}"} for number in range(runs)]}
    batch_id: str = aws(*BATCH, json.dumps(settings), *arguments)["id"]
    return batch_id


def run_ids(aws: Cli, batch_id: str) -> list[str]:
    ids: list[str] = aws("list-runs-in-batch", "--batch-id", batch_id, "--query", "runs[].runId")
    return ids


def pages(aws: Cli, key: str, *command: str) -> list[list[Any]]:
    """List one page of the service after the other; the CLI takes the service's own tokens only."""
    answer = aws(*command, "--no-paginate")
    listed = [answer[key]]
    while "nextToken" in answer:
        answer = aws(*command, "--starting-token", answer["nextToken"])
        listed.append(answer[key])
    return listed


def check_first_items(aws: Cli, key: str, everything: list[Any], *command: str) -> None:
    """Check what ``--max-items`` gives: the CLI takes pages until it has enough, and cuts the last one."""
    answer = aws(*command, "--max-items", "3", "--page-size", "2")
    assert answer[key] == everything[:3]
    # The CLI sends the token that it makes itself on to HealthOmics, which knows nothing of it.
    assert "(ValidationException)" in aws.error(*command, "--starting-token", answer["NextToken"])
    answer = aws(*command, "--max-items", str(len(everything)))
    assert answer[key] == everything
    assert "NextToken" not in answer


def test_the_command_itself(aws: Cli, tmp_path: Path) -> None:
    environment = {**aws.environment, "PATH": os.environ["PATH"], "HOME": str(tmp_path)}

    def run(*arguments: str) -> Any:
        command = [AWS_CLI, "omics", *arguments, "--output", "json"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    created = run("create-run-cache", "--name", "from-cli", "--cache-s3-location", LOCATION)
    assert run("list-run-caches")["items"] == [aws("get-run-cache", "--id", created["id"], "--query", LISTED)]


LISTED = (
    "{arn: arn, cacheBehavior: cacheBehavior, cacheS3Uri: cacheS3Uri, creationTime: creationTime, id: id, name: name, "
    "status: status}"
)


def test_each_operation(aws: Cli, local: LocalHealthOmicsServer) -> None:
    def call(operation: str, **members: Any) -> Any:
        return aws(xform_name(operation, "-"), "--cli-input-json", json.dumps(members))

    call_each_operation(call, local, "cli")


# Run caches


def test_creates_a_run_cache_with_all_that_it_can_have(aws: Cli) -> None:
    created = create_cache(
        aws,
        *("--name", "cohort", "--cache-behavior", "CACHE_ALWAYS", "--description", "for the cohort"),
        *("--cache-bucket-owner-id", ACCOUNT, "--tags", "team=genomics,cost=a b"),
    )
    tags = {"team": "genomics", "cost": "a b"}
    arn = f"arn:aws:omics:us-east-1:{ACCOUNT}:runCache/{created['id']}"
    assert created == {"arn": arn, "id": created["id"], "status": "ACTIVE", "tags": tags}
    found = aws("get-run-cache", "--id", created["id"])
    assert found.pop("cacheS3Uri").startswith(LOCATION)
    assert found.pop("creationTime")
    assert found == {
        **created,
        "name": "cohort",
        "cacheBehavior": "CACHE_ALWAYS",
        "description": "for the cohort",
        "cacheBucketOwnerId": ACCOUNT,
    }


def test_creates_a_run_cache_from_a_file_and_what_is_said_beside_it(aws: Cli, tmp_path: Path) -> None:
    path = tmp_path / "request.json"
    path.write_text(
        json.dumps({"name": "from-file", "cacheS3Location": LOCATION, "description": "both", "tags": {"from": "file"}})
    )
    created = aws("create-run-cache", "--cli-input-json", f"file://{path}", "--name", "from-argument")
    assert created["tags"] == {"from": "file"}
    found = aws("get-run-cache", "--id", created["id"])
    assert (found["name"], found["description"]) == ("from-argument", "both")


def test_a_skeleton_of_the_cli_is_a_request(aws: Cli) -> None:
    skeleton = aws("create-run-cache", "--generate-cli-skeleton")
    assert set(skeleton) >= {"cacheBehavior", "cacheBucketOwnerId", "cacheS3Location", "description", "name", "tags"}
    request = {**skeleton, "cacheS3Location": LOCATION, "cacheBucketOwnerId": ACCOUNT, "name": "skeleton"}
    request.update(cacheBehavior="CACHE_ALWAYS", description="filled", requestId="one")
    aws("create-run-cache", "--cli-input-json", json.dumps(request))
    assert aws("list-run-caches", "--query", "items[].name") == ["skeleton"]


def test_the_same_request_id_creates_one_run_cache(aws: Cli) -> None:
    one = create_cache(aws, "--name", "one", "--request-id", "token-1")
    assert create_cache(aws, "--name", "one", "--request-id", "token-1") == one
    assert "(ConflictException)" in aws.error(
        "create-run-cache", "--cache-s3-location", LOCATION, "--name", "other", "--request-id", "token-1"
    )
    assert aws("list-run-caches", "--query", "length(items)") == 1
    other = create_cache(aws, "--name", "one")
    assert create_cache(aws, "--name", "one")["id"] != other["id"] != one["id"]
    assert aws("list-run-caches", "--query", "length(items)") == 3


def test_lists_run_caches(aws: Cli, local: LocalHealthOmicsServer) -> None:
    ids = [create_cache(aws, "--name", f"c{number}")["id"] for number in range(5)]
    everything = aws("list-run-caches")["items"]
    assert [item["id"] for item in everything] == ids[::-1]
    before = local.calls["ListRunCaches"]
    assert aws("list-run-caches", "--page-size", "2")["items"] == everything
    assert local.calls["ListRunCaches"] - before == 3
    check_first_items(aws, "items", everything, "list-run-caches")
    listed = pages(aws, "items", "list-run-caches", "--max-results", "2")
    assert listed == [everything[:2], everything[2:4], everything[4:]]
    query = "items[?name==`c3`].[id,status]"
    assert aws.text("list-run-caches", "--query", query, "--output", "text") == f"{ids[3]}\tACTIVE"
    assert "(ValidationException)" in aws.error("list-run-caches", "--page-size", "101")
    assert "(ValidationException)" in aws.error("list-run-caches", "--starting-token", "nonsense")


def test_updates_a_run_cache(aws: Cli) -> None:
    cache_id = create_cache(aws, "--name", "before", "--description", "stays")["id"]
    assert aws("update-run-cache", "--id", cache_id, "--name", "after", "--cache-behavior", "CACHE_ALWAYS") is None
    found = aws("get-run-cache", "--id", cache_id)
    assert (found["name"], found["cacheBehavior"], found["description"]) == ("after", "CACHE_ALWAYS", "stays")
    assert aws("update-run-cache", "--id", cache_id, "--description", "changed") is None
    found = aws("get-run-cache", "--id", cache_id)
    assert (found["name"], found["cacheBehavior"], found["description"]) == ("after", "CACHE_ALWAYS", "changed")


def test_deletes_a_run_cache(aws: Cli) -> None:
    cache_id = create_cache(aws, "--name", "gone")["id"]
    assert aws("delete-run-cache", "--id", cache_id) is None
    for operation in ("get-run-cache", "delete-run-cache"):
        assert "(ResourceNotFoundException)" in aws.error(operation, "--id", cache_id)
    assert aws("list-run-caches") == {"items": []}


def test_does_not_delete_a_run_cache_that_is_used(aws: Cli, local: LocalHealthOmicsServer) -> None:
    cache_id = create_cache(aws)["id"]
    settings = json.dumps({"inlineSettings": [{"runSettingId": "s0"}]})
    aws(*BATCH, settings, "--default-run-setting", f"{DEFAULT_RUN_SETTING},cacheId={cache_id}")
    local.clock.advance(10)
    assert "(ConflictException)" in aws.error("delete-run-cache", "--id", cache_id)
    local.clock.advance(3600)
    assert aws("delete-run-cache", "--id", cache_id) is None


@pytest.mark.parametrize(
    "arguments",
    [
        ("create-run-cache", "--cache-s3-location", "cli/cache/"),
        ("get-batch", "--batch-id", "abc"),
        ("list-runs-in-batch", "--batch-id", "1", "--submission-status", "SUCCESS", "--run-id", "1"),
        ("tag-resource", "--resource-arn", "arn:aws:s3:::cli", "--tags", "a=b"),
    ],
    ids=" ".join,
)
def test_the_service_refuses_what_breaks_a_rule(aws: Cli, arguments: tuple[str, ...]) -> None:
    assert "(ValidationException)" in aws.error(*arguments)


def test_the_cli_refuses_what_lacks_something(aws: Cli, local: LocalHealthOmicsServer) -> None:
    assert "--cache-s3-location" in aws.error("create-run-cache", "--name", "nowhere")
    assert "--batch-run-settings" in aws.error(*BATCH[:-1])
    assert not local.calls


@pytest.mark.parametrize(
    "arguments",
    [
        ("get-run-cache", "--id", "999"),
        ("delete-batch", "--batch-id", "999"),
        ("delete-run", "--id", "999"),
        ("list-tags-for-resource", "--resource-arn", f"arn:aws:omics:us-east-1:{ACCOUNT}:runBatch/999"),
    ],
    ids=lambda arguments: arguments[0],
)
def test_what_does_not_exist_is_not_found(aws: Cli, arguments: tuple[str, ...]) -> None:
    assert "(ResourceNotFoundException)" in aws.error(*arguments)


# Batches


def test_starts_a_batch_in_the_clis_own_notation(aws: Cli, local: LocalHealthOmicsServer) -> None:
    started = aws(
        *BATCH,
        "inlineSettings=[{runSettingId=s0,priority=7},{runSettingId=s1,name=second,runTags={sample=s1}}]",
        *("--batch-name", "cohort", "--tags", "team=genomics"),
    )
    batch_id = started["id"]
    assert started.pop("uuid")
    assert started == {
        "id": batch_id,
        "arn": f"arn:aws:omics:us-east-1:{ACCOUNT}:runBatch/{batch_id}",
        "status": "CREATING",
        "tags": {"team": "genomics"},
    }
    local.clock.advance(3600)
    found = aws("get-batch", "--batch-id", batch_id)
    assert (found["status"], found["name"], found["totalRuns"]) == ("PROCESSED", "cohort", 2)
    assert found["submissionSummary"]["successfulStartSubmissionCount"] == 2
    assert found["runSummary"]["completedRunCount"] == 2
    assert found["defaultRunSetting"]["workflowId"] == "1234567"
    first, second = run_ids(aws, batch_id)
    assert aws("get-run", "--id", first)["priority"] == 7
    run = aws("get-run", "--id", second)
    assert (run["name"], run["tags"]) == ("second", {"sample": "s1"})


def test_starts_a_batch_whose_settings_are_in_s3(aws: Cli, local: LocalHealthOmicsServer, tmp_path: Path) -> None:
    path = tmp_path / "settings.json"

    def upload(runs: int) -> None:
        settings = [{"runSettingId": f"s{number}", "parameters": {"number": number}} for number in range(runs)]
        path.write_text(json.dumps(settings))
        code, _, err = aws.run("s3", "cp", str(path), "s3://cli/settings.json")
        assert (code, err) == (0, "")

    upload(250)
    batch_id = aws(*BATCH, "s3UriSettings=s3://cli/settings.json")["id"]
    local.clock.advance(3600)
    assert aws("get-batch", "--batch-id", batch_id, "--query", "totalRuns") == 250
    assert len(set(run_ids(aws, batch_id))) == 250
    changed = aws(*BATCH, "s3UriSettings=s3://cli/settings.json")["id"]
    upload(3)
    local.clock.advance(3600)
    found = aws("get-batch", "--batch-id", changed, "--query", "[status, failureReason]")
    assert found[0] == "FAILED"
    assert "s3UriConfigs have changed" in found[1]
    missing = aws.error(*BATCH, "s3UriSettings=s3://cli/missing.json")
    assert "(ValidationException)" in missing


def test_starts_a_batch_from_a_file(aws: Cli, local: LocalHealthOmicsServer, tmp_path: Path) -> None:
    request = {
        "batchName": "from-file",
        "defaultRunSetting": {
            "workflowId": "1234567",
            "roleArn": f"arn:aws:iam::{ACCOUNT}:role/omics",
            "outputUri": "s3://cli/runs/",
            "parameters": {"reference": "s3://cli/hg38.fa", "depth": 30},
        },
        "batchRunSettings": {"inlineSettings": [{"runSettingId": "s0", "parameters": {"depth": 60}}]},
    }
    path = tmp_path / "request.json"
    path.write_text(json.dumps(request))
    batch_id = aws("start-run-batch", "--cli-input-json", f"file://{path}")["id"]
    local.clock.advance(3600)
    assert aws("get-batch", "--batch-id", batch_id, "--query", "name") == "from-file"
    (run_id,) = run_ids(aws, batch_id)
    assert aws("get-run", "--id", run_id)["parameters"] == {"reference": "s3://cli/hg38.fa", "depth": 60}


def test_the_same_request_id_starts_one_batch(aws: Cli) -> None:
    one = start_batch(aws, "--request-id", "token-1")
    assert start_batch(aws, "--request-id", "token-1") == one
    other = json.dumps({"inlineSettings": [{"runSettingId": "other"}]})
    assert "(ConflictException)" in aws.error(*BATCH, other, "--request-id", "token-1")
    assert aws("list-batch", "--query", "items[].id") == [one]
    assert start_batch(aws) != start_batch(aws)


def test_lists_batches(aws: Cli, local: LocalHealthOmicsServer) -> None:
    old = [start_batch(aws, "--batch-name", "old", runs=1) for _ in range(2)]
    local.clock.advance(3600)
    grouped = start_batch(aws, "--default-run-setting", f"{DEFAULT_RUN_SETTING},runGroupId=42", runs=1)
    new = [start_batch(aws, "--batch-name", f"new-{number}", runs=1) for number in range(2)]
    everything = [*old, grouped, *new]

    def ids(*arguments: str) -> Any:
        return aws("list-batch", *arguments, "--query", "items[].id")

    assert ids() == everything
    assert ids("--status", "PROCESSED") == old
    assert ids("--status", "CREATING") == [grouped, *new]
    assert ids("--status", "CANCELLED") == []
    assert ids("--name", "old") == old
    assert ids("--name", "ol") == []
    assert ids("--run-group-id", "42") == [grouped]
    before = local.calls["ListBatch"]
    assert ids("--page-size", "2") == everything
    assert local.calls["ListBatch"] - before == 3
    check_first_items(aws, "items", aws("list-batch")["items"], "list-batch")
    listed = pages(aws, "items", "list-batch", "--max-items", "3")
    assert [[item["id"] for item in page] for page in listed] == [everything[:3], everything[3:]]
    listed = pages(aws, "items", "list-batch", "--name", "old", "--max-items", "1")
    assert [[item["id"] for item in page] for page in listed] == [old[:1], old[1:]]
    (item,) = aws("list-batch", "--name", "new-1")["items"]
    assert item.pop("createdAt")
    assert item == {
        "id": new[1],
        "name": "new-1",
        "status": "CREATING",
        "totalRuns": 1,
        "workflowId": "1234567",
    }


def test_lists_the_runs_of_a_batch(aws: Cli, local: LocalHealthOmicsServer) -> None:
    local.faults.fail_submission("s2", reason="AccessDeniedException", message="No")
    batch_id = start_batch(aws, runs=7)
    assert run_ids(aws, batch_id) == []
    local.clock.advance(3600)

    def ids(*arguments: str) -> Any:
        command = ("list-runs-in-batch", "--batch-id", batch_id, *arguments)
        return aws(*command, "--query", "runs[].runSettingId")

    everything = [f"s{number}" for number in range(7)]
    submitted = [name for name in everything if name != "s2"]
    assert ids() == everything
    assert ids("--submission-status", "SUCCESS") == submitted
    assert ids("--submission-status", "FAILED") == ["s2"]
    assert ids("--run-setting-id", "s4") == ["s4"]
    assert ids("--run-setting-id", "s") == []
    run_id = aws("list-runs-in-batch", "--batch-id", batch_id, "--query", "runs[?runSettingId=='s5'] | [0].runId")
    assert ids("--run-id", run_id) == ["s5"]
    assert ids("--run-id", "999") == []
    before = local.calls["ListRunsInBatch"]
    assert ids("--page-size", "3") == everything
    assert local.calls["ListRunsInBatch"] - before == 3
    command = ("list-runs-in-batch", "--batch-id", batch_id)
    check_first_items(aws, "runs", aws(*command)["runs"], *command)
    listed = pages(aws, "runs", *command, "--max-items", "4")
    assert [[run["runSettingId"] for run in page] for page in listed] == [everything[:4], everything[4:]]
    listed = pages(aws, "runs", *command, "--submission-status", "SUCCESS", "--max-items", "5")
    assert [[run["runSettingId"] for run in page] for page in listed] == [submitted[:5], submitted[5:]]
    assert aws(*command, "--submission-status", "FAILED")["runs"] == [
        {
            "runSettingId": "s2",
            "submissionStatus": "FAILED",
            "submissionFailureReason": "AccessDeniedException",
            "submissionFailureMessage": "No",
        }
    ]
    (run,) = aws(*command, "--run-setting-id", "s5")["runs"]
    assert run.pop("runInternalUuid") == aws("get-run", "--id", run_id, "--query", "uuid")
    assert run == {
        "runSettingId": "s5",
        "submissionStatus": "SUCCESS",
        "runId": run_id,
        "runArn": f"arn:aws:omics:us-east-1:{ACCOUNT}:run/{run_id}",
    }


def test_cancels_a_batch(aws: Cli, local: LocalHealthOmicsServer) -> None:
    batch_id = start_batch(aws)

    def status() -> Any:
        return aws("get-batch", "--batch-id", batch_id, "--query", "status")

    cancel = ("cancel-run-batch", "--batch-id", batch_id)
    assert f"(ConflictException) when calling the CancelRunBatch operation: Batch {batch_id} is CREATING" in aws.error(
        *cancel
    )
    local.clock.advance(10)
    assert status() == "INPROGRESS"
    assert aws(*cancel) is None
    assert status() == "STOPPING"
    assert "STOPPING" in aws.error(*cancel)
    local.clock.advance(3600)
    assert status() == "CANCELLED"
    assert "CANCELLED" in aws.error(*cancel)
    assert aws("list-runs-in-batch", "--batch-id", batch_id, "--submission-status", "SUCCESS")["runs"] == []
    cancelled = aws("list-runs-in-batch", "--batch-id", batch_id, "--submission-status", "CANCEL_SUCCESS")["runs"]
    assert [run["runSettingId"] for run in cancelled] == ["s0", "s1", "s2"]
    assert aws("list-runs", "--batch-id", batch_id, "--query", "items[].status") == ["CANCELLED"] * 3


def test_deletes_a_batch(aws: Cli, local: LocalHealthOmicsServer) -> None:
    batch_id = start_batch(aws)

    def status() -> Any:
        return aws("get-batch", "--batch-id", batch_id, "--query", "status")

    local.clock.advance(10)
    for operation in ("delete-run-batch", "delete-batch"):
        assert "(ConflictException)" in aws.error(operation, "--batch-id", batch_id)
    local.clock.advance(3600)
    assert status() == "PROCESSED"
    assert aws("delete-run-batch", "--batch-id", batch_id) is None
    assert status() == "RUNS_DELETING"
    for operation in ("delete-run-batch", "delete-batch"):
        assert "RUNS_DELETING" in aws.error(operation, "--batch-id", batch_id)
    local.clock.advance(3600)
    assert status() == "RUNS_DELETED"
    deleted = aws("list-runs-in-batch", "--batch-id", batch_id, "--submission-status", "DELETE_SUCCESS")["runs"]
    assert len(deleted) == 3
    assert aws("list-runs", "--batch-id", batch_id)["items"] == []
    assert "(ConflictException)" in aws.error("delete-run-batch", "--batch-id", batch_id)
    assert aws("delete-batch", "--batch-id", batch_id) is None
    for operation in ("get-batch", "list-runs-in-batch", "cancel-run-batch", "delete-run-batch", "delete-batch"):
        assert "(ResourceNotFoundException)" in aws.error(operation, "--batch-id", batch_id)


def test_deleting_a_batch_leaves_its_runs(aws: Cli, local: LocalHealthOmicsServer) -> None:
    batch_id = start_batch(aws)
    local.clock.advance(3600)
    assert aws("delete-batch", "--batch-id", batch_id) is None
    assert aws("list-batch")["items"] == []
    assert aws("list-runs", "--batch-id", batch_id, "--query", "length(items)") == 3


# Single runs, run groups and workflows


def test_starts_a_run(aws: Cli, local: LocalHealthOmicsServer) -> None:
    role = f"arn:aws:iam::{ACCOUNT}:role/omics"
    where = ("--workflow-id", "1234567", "--role-arn", role, "--output-uri", "s3://cli/runs/")
    start = ("start-run", *where, "--name", "one", "--request-id", "token-1", "--parameters", '{"depth": 30}')
    started = aws(*start)
    assert aws(*start)["id"] == started["id"]
    local.clock.advance(3600)
    found = aws("get-run", "--id", started["id"])
    assert (found["status"], found["parameters"]) == ("COMPLETED", {"depth": 30})
    tasks = aws("list-run-tasks", "--id", started["id"], "--status", "COMPLETED")["items"]
    assert len(tasks) == 3
    task = aws("get-run-task", "--id", started["id"], "--task-id", tasks[0]["taskId"])
    assert (task["name"], task["status"]) == (tasks[0]["name"], "COMPLETED")


def test_creates_a_run_group(aws: Cli) -> None:
    limits = ("--max-runs", "20", "--max-duration", "600", "--max-cpus", "256", "--max-gpus", "8")
    create = ("create-run-group", "--name", "capped", *limits, "--request-id", "one", "--tags", "team=genomics")
    group = aws(*create)
    assert aws(*create) == group
    found = aws("get-run-group", "--id", group["id"])
    assert found.pop("creationTime")
    assert found == {**group, "name": "capped", "maxCpus": 256, "maxGpus": 8, "maxRuns": 20, "maxDuration": 600}
    assert "valid min value: 1" in aws.error("create-run-group", "--max-runs", "0")


# Runs and tags


def test_lists_gets_cancels_and_deletes_runs(aws: Cli, local: LocalHealthOmicsServer) -> None:
    local.faults.fail_run("s2", reason="OUT_OF_MEMORY_ERROR")
    done = start_batch(aws, "--default-run-setting", f"{DEFAULT_RUN_SETTING},name=done")
    local.clock.advance(3600)
    started = start_batch(aws, "--default-run-setting", f"{DEFAULT_RUN_SETTING},name=started", runs=2)
    local.clock.advance(10)
    failed = run_ids(aws, done)[2]
    first, second = run_ids(aws, started)

    def ids(*arguments: str) -> Any:
        return aws("list-runs", *arguments, "--query", "items[].id")

    assert ids("--batch-id", done) == run_ids(aws, done)
    assert ids("--batch-id", done, "--status", "FAILED") == [failed]
    assert ids("--name", "started") == [first, second]
    check_first_items(aws, "items", aws("list-runs")["items"], "list-runs")
    listed = pages(aws, "items", "list-runs", "--max-results", "3")
    assert [[run["id"] for run in page] for page in listed] == [ids("--name", "done"), [first, second]]
    run = aws("get-run", "--id", failed)
    assert (run["status"], run["failureReason"], run["batchId"]) == ("FAILED", "OUT_OF_MEMORY_ERROR", done)
    assert "(ConflictException)" in aws.error("cancel-run", "--id", failed)
    assert "(ConflictException)" in aws.error("delete-run", "--id", first)
    assert aws("cancel-run", "--id", first) is None
    local.clock.advance(3600)
    assert aws("get-run", "--id", first, "--query", "status") == "CANCELLED"
    assert aws("wait", "run-completed", "--id", second) is None
    assert aws("delete-run", "--id", first) is None
    assert "(ResourceNotFoundException)" in aws.error("get-run", "--id", first)
    assert ids("--batch-id", started) == [second]


@pytest.mark.parametrize("kind", ["run cache", "batch", "run"])
def test_tags(aws: Cli, local: LocalHealthOmicsServer, kind: str) -> None:
    if kind == "run cache":
        arn = create_cache(aws, "--tags", "first=1")["arn"]
    else:
        settings = '{"inlineSettings": [{"runSettingId": "s0", "runTags": {"first": "1"}}]}'
        arn = aws(*BATCH, settings, "--tags", "first=1")["arn"]
        local.clock.advance(10)
    if kind == "run":
        arn = aws("list-runs", "--query", "items[0].arn")
    command = ("--resource-arn", arn)
    assert aws("tag-resource", *command, "--tags", "second=2,third=a=b") is None
    assert aws("list-tags-for-resource", *command)["tags"] == {"first": "1", "second": "2", "third": "a=b"}
    assert aws("untag-resource", *command, "--tag-keys", "first", "third") is None
    assert aws("list-tags-for-resource", *command)["tags"] == {"second": "2"}
