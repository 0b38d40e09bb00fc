"""The preflight against the local HealthOmics, and moto's S3 and IAM: each finding, and all of them at once."""

from __future__ import annotations

import io
import json
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import boto3
import botocore.session
import pytest
from botocore.stub import Stubber

from airflow_provider_omics_cache.exceptions import OmicsParameterError, PreflightError
from airflow_provider_omics_cache.healthomics import findings, settings_scan
from airflow_provider_omics_cache.healthomics import preflight as module
from airflow_provider_omics_cache.healthomics.preflight import preflight
from airflow_provider_omics_cache.hooks.omics import OmicsCacheHook
from airflow_provider_omics_cache.hooks.s3 import s3_client
from tests.conftest import HAS_BATCHES, needs_batches

_OMICS = botocore.session.Session().get_service_model("omics")
#: botocore learnt the members ``configurationName`` and ``engineSettings`` of batches later than batches.
needs_newer_members = pytest.mark.skipif(
    not HAS_BATCHES or "engineSettings" not in _OMICS.shape_for("DefaultRunSetting").members,
    reason="the installed botocore has no engineSettings of batches",
)

WORKFLOW = "7654321"
BUCKET = "cohort-data"
ROLE = "arn:aws:iam::123456789012:role/omics"
TRUST = {"Effect": "Allow", "Principal": {"Service": "omics.amazonaws.com"}, "Action": "sts:AssumeRole"}
#: A template and inputs of the shape that AWS's tutorials publish: a list of pairs, a folder, text and numbers.
ALIGNMENT = {
    "sample_name": {"description": "Name of the sample", "optional": False},
    "fastq_pairs": {"description": "Read groups, each with a pair of files", "optional": False},
    "reference": {"description": "Folder of the reference"},
    "container": {"description": "URI of the image", "optional": False},
    "max_length": {"description": "Longest read", "optional": True},
}
ALIGNMENT_INPUTS = {
    "sample_name": "HG001",
    "fastq_pairs": [
        {"read_group": "A.1", "fastq_1": f"s3://{BUCKET}/HG001.A.R1.gz", "fastq_2": f"s3://{BUCKET}/HG001.A.R2.gz"},
        {"read_group": "A.2", "fastq_1": {"class": "File", "location": f"s3://{BUCKET}/HG001.B.R1.gz"}},
    ],
    "reference": f"s3://{BUCKET}/reference/",
    "container": "123456789012.dkr.ecr.us-east-1.amazonaws.com/bwa:1",
}
ANNOTATION = {
    "vcf": {"description": "Input"},
    "species": {"description": "Species"},
    "id": {"description": "Name", "optional": True},
}
ANNOTATION_INPUTS = {"vcf": f"s3://{BUCKET}/HG001.vcf.gz", "species": "homo_sapiens"}

Found = list[Any]


@pytest.fixture
def s3(local_healthomics: Any) -> Any:
    client = boto3.client("s3")
    client.create_bucket(Bucket=BUCKET)
    for key in ("HG001.A.R1.gz", "HG001.A.R2.gz", "HG001.B.R1.gz", "reference/genome.fa", "HG001.vcf.gz"):
        client.put_object(Bucket=BUCKET, Key=key, Body=b"")
    return client


@pytest.fixture
def local(local_healthomics: Any, s3: Any) -> Any:
    """The local HealthOmics with a workflow, and everything else that a batch needs."""
    local_healthomics.settings.strict_workflows = local_healthomics.settings.strict_run_groups = True
    local_healthomics.register_workflow(WORKFLOW, parameter_template=ALIGNMENT)
    policy = {"Version": "2012-10-17", "Statement": [TRUST]}
    boto3.client("iam").create_role(RoleName="omics", AssumeRolePolicyDocument=json.dumps(policy))
    return local_healthomics


@pytest.fixture
def look(local: Any) -> Callable[..., Found]:
    """Run the preflight for a batch of one run, with changes to its default setting."""
    if not HAS_BATCHES:
        pytest.skip("the installed botocore has no HealthOmics batches")

    def look(run_settings: Any = None, parameters: Any = None, *, options: Any = None, **default: Any) -> Found:
        setting = {"runSettingId": "HG001", "parameters": ALIGNMENT_INPUTS if parameters is None else parameters}
        given = [setting] if run_settings is None else run_settings
        return preflight(OmicsCacheHook(), {**DEFAULT, **default}, given, **options or {})

    return look


DEFAULT = {"workflowId": WORKFLOW, "roleArn": ROLE, "outputUri": f"s3://{BUCKET}/runs"}


def short(found: Found, level: str = "error") -> list[tuple[str, str]]:
    return [(finding["check"], finding["subject"]) for finding in found if finding["level"] == level]


def texts(found: Found) -> str:
    return "\n".join(findings.described(finding) for finding in found)


# Right, and the pairs of the tutorials


@needs_newer_members
def test_nothing_is_found_in_a_batch_that_would_run(look: Any, local: Any) -> None:
    cache = boto3.client("omics").create_run_cache(cacheS3Location=f"s3://{BUCKET}/cache", name="c")["id"]
    group = boto3.client("omics").create_run_group(name="g")["id"]
    boto3.client("omics").create_configuration(name="vpc", runConfigurations={})
    local.register_workflow_version(WORKFLOW, "v1", parameter_template=ALIGNMENT)
    local.calls.clear()
    found = look(
        cacheId=cache,
        runGroupId=group,
        configurationName="vpc",
        workflowVersionName="v1",
        options={"settings_s3_prefix": f"s3://{BUCKET}/settings"},
    )
    assert found == []
    reads = ("Workflow", "WorkflowVersion", "RunCache", "RunGroup", "Configuration")
    assert local.calls == {**{f"Get{name}": 1 for name in reads}, "ListRuns": 1}


def test_swapped_pairs_of_template_and_inputs_fail(look: Any, local: Any) -> None:
    local.register_workflow("2000001", parameter_template=ANNOTATION)
    assert look(parameters=ANNOTATION_INPUTS, workflowId="2000001") == []
    swapped = short(look(parameters=ANNOTATION_INPUTS))
    assert swapped == [
        *(("parameters", name) for name in ("container", "fastq_pairs", "reference", "sample_name")),
        *(("parameters", name) for name in ("species", "vcf")),
    ]
    assert ("parameters", "vcf") in short(look(workflowId="2000001"))


# Parameters


def test_each_wrong_parameter_is_named_once_with_its_runs(look: Any) -> None:
    ids = [f"HG{number:03}" for number in range(40)]
    run = {**ALIGNMENT_INPUTS, "max_lenght": 1}
    del run["sample_name"], run["container"]
    settings = [{"runSettingId": each, "parameters": run} for each in ids]
    settings[0] = {"runSettingId": "HG000", "parameters": ALIGNMENT_INPUTS}
    found = look(settings, options={"sample_size": 0})
    wrong = {finding["subject"]: finding["text"] for finding in found if finding["check"] == "parameters"}
    assert set(wrong) == {"sample_name", "container", "max_lenght"}
    assert "39 of 40 runs: HG001, HG002," in wrong["sample_name"]
    assert wrong["sample_name"].endswith("HG020 and 19 more")
    assert "did you mean 'max_length'?" in wrong["max_lenght"]


@needs_batches
def test_parameters_are_merged_with_the_defaults(local: Any) -> None:
    default = {**DEFAULT, "parameters": {**ALIGNMENT_INPUTS, "referense": "x"}}
    found = preflight(OmicsCacheHook(), default, [{"runSettingId": "a"}, {"runSettingId": "b"}], sample_size=0)
    assert short(found) == [("parameters", "referense")]
    assert "did you mean 'reference'?); it is in default_run_setting" in found[0]["text"]


@needs_newer_members
def test_a_profile_has_its_own_template(look: Any, local: Any) -> None:
    local.register_workflow(WORKFLOW, parameter_template=ALIGNMENT, profile_templates={"short": {"input": {}}})
    settings = [
        {"runSettingId": "a", "parameters": {"input": "x"}, "engineSettings": {"profile": "short"}},
        {"runSettingId": "b", "parameters": {"input": "x"}, "engineSettings": {"profile": "other"}},
    ]
    found = look(settings)
    assert {finding["text"].rpartition(": ")[2] for finding in found} == {"b"}
    assert ("parameters", "input") in short(found)
    assert short(look(settings[:1], engineSettings={"profile": "other"})) == []


def test_a_version_has_its_own_template_and_a_workflow_may_have_none(look: Any, local: Any) -> None:
    local.register_workflow_version(WORKFLOW, "v2", parameter_template={"input": {}})
    assert short(look(parameters={"input": "x"}, workflowVersionName="v2")) == []
    local.register_workflow("2000002")
    assert look(parameters={"anything": 1}, workflowId="2000002") == []


def test_only_twenty_names_are_listed() -> None:
    check = settings_scan.ParameterCheck("workflow 1", {"parameterTemplate": {"a": {"optional": True}}}, {})
    for number in range(30):
        check.add(f"r{number}", {"parameters": {f"x{number}": 1}})
    found = list(check.findings())
    assert len(found) == 21
    assert found[-1]["text"].startswith("10 more missing or unknown parameters")


# HealthOmics


@needs_newer_members
def test_resources_that_do_not_exist_or_are_not_active(look: Any, local: Any) -> None:
    cache = boto3.client("omics").create_run_cache(cacheS3Location=f"s3://{BUCKET}/cache", name="c")["id"]
    boto3.client("omics").delete_run_cache(id=cache)
    local.register_workflow(WORKFLOW, parameter_template=ALIGNMENT, status="FAILED")
    found = look(cacheId="999", runGroupId="998", configurationName="none", workflowVersionName="v9")
    assert short(found) == [
        ("workflow", f"workflow {WORKFLOW}"),
        ("workflow", f"workflow {WORKFLOW}, version v9"),
        ("run_cache", "run cache 999"),
        ("run_group", "run group 998"),
        ("configuration", "configuration none"),
    ]
    assert "is FAILED; it must be ACTIVE" in texts(found)
    assert "does not exist in us-east-1" in texts(found)
    assert ("run_cache", f"run cache {cache}") in short(look(cacheId=cache))
    assert short(look(workflowId="1")) == [("workflow", "workflow 1")]
    assert ("workflow", "workflow seven") in short(look(workflowId="seven"))


@pytest.mark.parametrize(
    ("operation", "member", "permission"),
    [
        ("GetWorkflow", {}, "omics:GetWorkflow"),
        ("GetWorkflowVersion", {"workflowVersionName": "v1"}, "omics:GetWorkflowVersion"),
        ("GetRunCache", {"cacheId": "1"}, "omics:GetRunCache"),
        ("GetRunGroup", {"runGroupId": "1"}, "omics:GetRunGroup"),
        pytest.param(
            "GetConfiguration",
            {"configurationName": "vpc"},
            "omics:GetConfiguration",
            marks=needs_newer_members,
        ),
        ("ListRuns", {}, "omics:ListRuns"),
    ],
)
def test_a_missing_permission_is_a_warning(
    look: Any, local: Any, operation: str, member: dict[str, str], permission: str
) -> None:
    local.faults.error(operation, code="AccessDeniedException", message="not authorized")
    (found,) = look(**member)
    assert found["level"] == "warning"
    assert f"the check needs {permission}: {operation} failed: AccessDeniedException: not authorized" in found["text"]


# The role


@pytest.mark.parametrize(
    ("statements", "is_trusted"),
    [
        ([TRUST], True),
        (TRUST, True),
        ([{**TRUST, "Condition": {"StringEquals": {"aws:SourceAccount": "123456789012"}}}], True),
        ([{**TRUST, "Principal": {"Service": ["ec2.amazonaws.com", "omics.amazonaws.com"]}}], True),
        ([{**TRUST, "Action": ["sts:TagSession", "sts:AssumeRole"]}], True),
        ([{**TRUST, "Principal": {"Service": "ec2.amazonaws.com"}}], False),
        ([{**TRUST, "Principal": {"AWS": "arn:aws:iam::123456789012:root"}}], False),
        ([{**TRUST, "Action": "sts:TagSession"}], False),
        ([TRUST, {**TRUST, "Effect": "Deny"}], False),
        ([TRUST, {**TRUST, "Effect": "Deny", "Condition": {"Bool": {"aws:SecureTransport": "false"}}}], True),
        ([], False),
        (None, False),
    ],
)
def test_which_policies_trust_healthomics(statements: Any, is_trusted: bool) -> None:
    assert findings.trusts_healthomics({"Statement": statements}) is is_trusted


def test_the_role_must_exist_and_trust_healthomics(look: Any) -> None:
    iam = boto3.client("iam")
    policy = {"Version": "2012-10-17", "Statement": [{**TRUST, "Principal": {"Service": "ec2.amazonaws.com"}}]}
    iam.create_role(RoleName="other", AssumeRolePolicyDocument=json.dumps(policy))
    iam.create_role(RoleName="moved", Path="/team/", AssumeRolePolicyDocument=json.dumps(policy))
    found = [
        *look(roleArn=ROLE.replace("omics", "other")),
        *look(roleArn=ROLE.replace("omics", "moved")),
        *look(roleArn=ROLE.replace("omics", "none")),
    ]
    assert [check for check, _ in short(found)] == ["role"] * 3
    assert "does not allow sts:AssumeRole for the service omics.amazonaws.com" in found[0]["text"]
    assert "the role with this name has the ARN arn:aws:iam::123456789012:role/team/moved" in found[1]["text"]
    assert "does not exist in the account of the connection" in found[2]["text"]


@contextmanager
def stubbed(monkeypatch: pytest.MonkeyPatch, stubs: dict[str, tuple[str, str]]) -> Iterator[None]:
    """Let clients of other services refuse a call: method and error code, by service."""
    make = module.impatient_client

    def impatient_client(hook: Any, service: str) -> Any:
        client = make(hook, service)
        if service in stubs:
            method, code = stubs[service]
            stubber = Stubber(client)
            stubber.add_client_error(method, code, "no", 400)
            stubber.activate()
        return client

    with monkeypatch.context() as patch:
        patch.setattr(module, "impatient_client", impatient_client)
        yield


def test_iam_and_service_quotas_may_be_closed(look: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = [{"runSettingId": each, "parameters": ALIGNMENT_INPUTS} for each in "ab"]
    denied = {"iam": ("get_role", "AccessDenied"), "service-quotas": ("get_service_quota", "AccessDeniedException")}
    with stubbed(monkeypatch, denied):
        found = look(settings)
    assert short(found) == []
    assert short(found, "warning") == [("role", ROLE), ("quota", "StartRun rate")]
    assert "the check needs iam:GetRole" in found[0]["text"]
    assert "the check needs servicequotas:GetServiceQuota: AWS's default quotas are used instead" in found[1]["text"]


# S3


def test_buckets_must_exist_in_the_region_with_their_owner(look: Any, s3: Any) -> None:
    s3.create_bucket(Bucket="far-away", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    settings = [
        {"runSettingId": "a", "parameters": ALIGNMENT_INPUTS, "outputUri": "s3://far-away/runs"},
        {"runSettingId": "b", "parameters": ALIGNMENT_INPUTS, "outputUri": "s3://far-away/other"},
        {"runSettingId": "c", "parameters": ALIGNMENT_INPUTS},
    ]
    found = look(settings, outputUri="s3://missing-bucket/runs", options={"settings_s3_prefix": "s3://No_Bucket/x"})
    assert short(found) == [
        ("bucket", "s3://far-away/runs"),
        ("bucket", "s3://missing-bucket/runs"),
        ("bucket", "s3://No_Bucket/x"),
    ]
    assert "must be in a bucket in us-east-1, but the bucket is in eu-west-1" in found[0]["text"]


@pytest.fixture
def s3_stub(local: Any) -> Iterator[Stubber]:
    with Stubber(s3_client()) as stubber:
        yield stubber


def test_a_bucket_with_closed_access_is_a_warning_and_a_foreign_one_an_error(look: Any, s3_stub: Stubber) -> None:
    options = {"s3": s3_stub.client, "sample_size": 0}
    s3_stub.add_client_error("head_bucket", "403", "Forbidden", 403)
    (found,) = look(options=options)
    assert (found["level"], found["check"]) == ("warning", "bucket")
    assert "the check needs s3:ListBucket" in found["text"]
    s3_stub.add_client_error(
        "head_bucket",
        "403",
        "Forbidden",
        403,
        expected_params={"Bucket": BUCKET, "ExpectedBucketOwner": "210987654321"},
    )
    s3_stub.add_response("head_bucket", {"ResponseMetadata": {"HTTPStatusCode": 200}}, {"Bucket": BUCKET})
    (found,) = look(options=options, outputBucketOwnerId="210987654321")
    assert (found["level"], found["check"]) == ("error", "bucket")
    assert "outputUri must be in a bucket of account 210987654321" in found["text"]


def test_the_bucket_of_the_cache_is_looked_at_with_its_owner(look: Any, s3_stub: Stubber) -> None:
    cache = boto3.client("omics").create_run_cache(cacheS3Location=f"s3://{BUCKET}/cache", name="c")["id"]
    s3_stub.add_response("head_bucket", {"ResponseMetadata": {"HTTPStatusCode": 200}}, {"Bucket": BUCKET})
    s3_stub.add_client_error(
        "head_bucket", "404", "no", 404, expected_params={"Bucket": BUCKET, "ExpectedBucketOwner": "123456789012"}
    )
    (found,) = look(options={"s3": s3_stub.client, "sample_size": 0}, cacheId=cache)
    assert f"run cache {cache} must be in a bucket that exists" in found["text"]


def test_inputs_must_exist_and_not_be_archived(look: Any, s3: Any, local: Any) -> None:
    local.register_workflow(WORKFLOW)
    for key, storage_class in (
        ("cold", "GLACIER"),
        ("deep", "DEEP_ARCHIVE"),
        ("back", "GLACIER"),
        ("ir", "GLACIER_IR"),
    ):
        s3.put_object(Bucket=BUCKET, Key=key, Body=b"", StorageClass=storage_class)
    s3.put_object(Bucket=BUCKET, Key="old/1", Body=b"", StorageClass="GLACIER")
    s3.restore_object(Bucket=BUCKET, Key="back", RestoreRequest={"Days": 1})
    keys = ("cold", "deep", "back", "ir", "gone", "old/", "empty/", "HG001.*.gz", "none/*.gz", "reference")
    s3.create_bucket(Bucket="far-away", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    others = ("s3://no-such-bucket-9/a/", "s3://no-such-bucket-9/b", "s3://far-away/c", "s3://{{bucket}}/x")
    uris = [*(f"s3://{BUCKET}/{key}" for key in keys), *others]
    settings = [{"runSettingId": f"r{number}", "parameters": {"file": uri}} for number, uri in enumerate(uris)]
    found = look(settings)
    wrong = {finding["subject"]: finding["text"] for finding in found if finding["check"] == "input"}
    assert {subject.removeprefix(f"s3://{BUCKET}/") for subject in wrong} == {
        *("cold", "deep", "gone", "old/", "empty/", "none/*.gz"),
        *("s3://no-such-bucket-9", "s3://far-away", "s3://{{bucket}}/x", "reference"),
    }
    assert wrong["s3://far-away"] == (
        "an input must be in a bucket in us-east-1, but the bucket is in eu-west-1 (first in r12)"
    )
    assert short(found, "warning") == [("input", f"s3://{BUCKET}/reference")]
    assert "is a folder, and its URI must end in a slash" in wrong[f"s3://{BUCKET}/reference"]
    assert wrong[uris[0]] == (
        "is archived (GLACIER); HealthOmics does not restore inputs: restore the object first (in r0)"
    )
    assert wrong[uris[4]] == "does not exist (in r4)"


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        ({}, ""),
        ({"StorageClass": "DEEP_ARCHIVE"}, "is archived (DEEP_ARCHIVE); "),
        ({"StorageClass": "GLACIER", "Restore": 'ongoing-request="true"'}, "is being restored"),
        ({"StorageClass": "GLACIER", "Restore": 'ongoing-request="false", expiry-date="Mon"'}, ""),
        ({"StorageClass": "INTELLIGENT_TIERING"}, ""),
        ({"StorageClass": "INTELLIGENT_TIERING", "ArchiveStatus": "ARCHIVE_ACCESS"}, "is archived (ARCHIVE_ACCESS)"),
        ({"StorageClass": "GLACIER_IR"}, ""),
    ],
)
def test_which_objects_are_archived(answer: dict[str, str], problem: str) -> None:
    found = findings.archive_problem(
        storage_class=answer.get("StorageClass"),
        archive_status=answer.get("ArchiveStatus"),
        **findings.restore_of(answer.get("Restore")),
    )
    assert problem in found
    assert bool(found) is bool(problem)


def test_inputs_that_the_worker_may_not_see_are_warnings(look: Any, s3_stub: Stubber) -> None:
    for _ in range(2):
        s3_stub.add_response("head_bucket", {"ResponseMetadata": {"HTTPStatusCode": 200}})
    for _ in range(3):
        s3_stub.add_client_error("head_object", "403", "Forbidden", 403)
    s3_stub.add_client_error("list_objects_v2", "AccessDenied", "Access Denied", 403)
    inputs = {**ALIGNMENT_INPUTS, "fastq_pairs": [f"s3://{BUCKET}/HG001.{number}.gz" for number in range(3)]}
    found = look(parameters=inputs, options={"s3": s3_stub.client})
    assert [finding["level"] for finding in found] == ["warning"] * 2
    assert "the check needs s3:GetObject" in found[0]["text"]
    assert found[0]["text"].endswith("(and 2 more inputs in the same bucket)")
    assert "the check needs s3:ListBucket" in found[1]["text"]


@pytest.mark.parametrize("count", [1, 7, 60, 150, 5000])
def test_the_sample_is_spread_over_the_batch(count: int) -> None:
    sample = settings_scan.InputSample({"parameters": {"reference": "s3://b/reference"}}, 51)
    for number in range(count):
        sample.add(f"r{number}", {"parameters": {"r1": f"s3://b/{number}.1", "r2": [f"s3://b/{number}.2"]}})
    picked = sample.values()
    assert len(picked) == min(51, 1 + 2 * count)
    assert picked.pop("s3://b/reference") == "default_run_setting"
    numbers = sorted({int(run[1:]) for run in picked.values()})
    assert numbers[0] == 0
    assert numbers[-1] >= count * 0.9 - 1
    assert {uri[-1] for uri in picked} == {"1", "2"}
    assert settings_scan.InputSample({"parameters": {"a": "s3://b/c"}}, 0).values() == {}


# Quotas


def test_the_time_of_the_submission_and_the_cap_on_runs(look: Any, local: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = [{"runSettingId": f"r{number}", "parameters": ALIGNMENT_INPUTS} for number in range(2000)]
    (found,) = look(settings, options={"sample_size": 1})
    assert (found["level"], found["check"], found["subject"]) == ("warning", "quota", "StartRun rate")
    assert "takes at least 7 min at 5 StartRun calls per second" in found["text"]
    monkeypatch.setattr(module, "DEFAULT_MOST_RUNS", 1999)
    found = look(settings, options={"sample_size": 1})
    assert short(found, "warning")[1:] == [("quota", "runs kept")]
    assert short(look(settings, options={"sample_size": 1}, retentionMode="REMOVE"), "warning") == [
        ("quota", "StartRun rate")
    ]


def test_what_is_said_of_runs_kept() -> None:
    def check(kept: int, *, is_all: bool = True, is_own_cap: bool = True) -> list[str]:
        found = findings.check_runs_kept(50, kept=kept, is_all=is_all, cap=100.0, is_own_cap=is_own_cap)
        return [finding["level"] for finding in found]

    assert check(50) == []
    assert check(51) == ["error"]
    assert check(51, is_own_cap=False) == ["warning"]
    assert check(51, is_all=False) == ["error"]
    assert check(10, is_all=False) == ["warning"]


def test_quotas_of_the_account_are_used(look: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    client = boto3.client("service-quotas")
    stubber = Stubber(client)
    for code, value in (("L-24A3B174", 0.1), ("L-C9679DBC", 99.0)):
        sent = {"ServiceCode": "omics", "QuotaCode": code}
        stubber.add_response("get_service_quota", {"Quota": {"Value": value}}, sent)
    make = module.impatient_client
    monkeypatch.setattr(
        module, "impatient_client", lambda hook, name: client if name == "service-quotas" else make(hook, name)
    )
    settings = [{"runSettingId": f"r{number}", "parameters": ALIGNMENT_INPUTS} for number in range(100)]
    with stubber:
        found = look(settings)
    assert short(found, "warning") == [("quota", "StartRun rate")]
    assert short(found) == [("quota", "runs kept")]
    assert "takes at least 17 min at 0.1 StartRun calls" in found[0]["text"]


# Settings, in a list or in a file


def test_settings_that_break_a_rule_are_found_with_the_rest(look: Any) -> None:
    settings = [{"runSettingId": "a", "parameters": {}}, {"runSettingId": "a", "parametres": {}}]
    found = look(settings, roleArn="omics", cacheBehavior="CACHE_ALWAYS")
    assert short(found)[:2] == [("settings", "default_run_setting"), ("settings", "run_settings")]
    assert "runSettingId must be unique" in texts(found)
    assert ("parameters", "sample_name") in short(found)
    assert short(look([])) == [("settings", "run_settings")]
    endless: list[Any] = [1]
    endless.append(endless)
    assert ("settings", "run_settings") in short(look(parameters={**ALIGNMENT_INPUTS, "max_length": endless}))
    (wrong,) = look(parameters={**ALIGNMENT_INPUTS, "reference": "s3://a:pass@b/c/"})
    assert "pass" not in str(wrong)
    assert ("settings", "run_settings") in short(look("[{}]"))


def test_a_file_is_read_and_its_settings_are_checked(look: Any, s3: Any) -> None:
    uri = f"s3://{BUCKET}/settings.json"
    settings = [{"runSettingId": "a", "parameters": {**ALIGNMENT_INPUTS, "x": 1}}, 5, {"parameters": {}}]
    settings += [{"runSettingId": "a"}]
    s3.put_object(Bucket=BUCKET, Key="settings.json", Body=json.dumps(settings).encode())
    found = look(uri)
    assert short(found)[:3] == [("settings", uri)] * 3
    assert {"x", "sample_name"} <= {finding["subject"] for finding in found}
    s3.put_object(Bucket=BUCKET, Key="settings.json", Body=b'[{"runSettingId": "a"} {')
    assert "must be a JSON array of run settings: a comma or ] must follow each setting, but '{' follows" in texts(
        look(uri)
    )
    s3.put_object(Bucket=BUCKET, Key="settings.json", Body=b"[]")
    assert "has no settings: it must have at least one" in texts(look(uri))
    s3.put_object(Bucket=BUCKET, Key="settings.json", Body=b'[{"runSettingId": "a", "paramters": {}}]')
    found = texts(look(uri, outputUri=None))
    assert "in InlineSetting: check its spelling" in found
    assert "; got paramters" in found
    assert "[0].outputUri must be given here or in default_run_setting" in found
    s3.put_object(Bucket=BUCKET, Key="settings.json", Body=json.dumps([5] * 30).encode())
    wrong = [finding["text"] for finding in look(uri) if finding["check"] == "settings"]
    assert (len(wrong), wrong[-1]) == (21, "10 more errors in its settings are not listed")
    assert short(look(f"s3://{BUCKET}/none.json")) == [("settings", f"s3://{BUCKET}/none.json")]


def test_a_file_that_may_not_be_read_is_a_warning(look: Any, s3_stub: Stubber) -> None:
    s3_stub.add_client_error("get_object", "AccessDenied", "Access Denied", 403)
    s3_stub.add_response("head_bucket", {"ResponseMetadata": {"HTTPStatusCode": 200}})
    (found,) = look(f"s3://{BUCKET}/settings.json", options={"s3": s3_stub.client})
    assert (found["level"], found["check"]) == ("warning", "settings")
    assert "the check needs s3:GetObject" in found["text"]


class Trickle(io.BytesIO):
    """A file that is read in small pieces."""

    def read(self, size: int | None = -1) -> bytes:
        return super().read(7)


@pytest.mark.parametrize("value", [[], [1], [12345678901, -3], [{"a": "ü" * 9}, [], "x", None, 1.5e3], [[1, [2]]]])
def test_an_array_is_read_in_pieces(value: Any) -> None:
    for text in (json.dumps(value), json.dumps(value, indent=3, ensure_ascii=False) + "\n"):
        assert list(settings_scan.read_settings(Trickle(text.encode()))) == value


@pytest.mark.parametrize("text", ["", "{}", "[", "[1", "[1,", "[1,]", "[1] 2", '[{"a": 1]', "[nul]", "[,]"])
def test_what_is_not_an_array_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"the file must|the array|a comma|a setting"):
        list(settings_scan.read_settings(Trickle(text.encode())))


def test_a_large_file_takes_little_memory() -> None:
    one = {"runSettingId": "", "parameters": {**ALIGNMENT_INPUTS, "note": "x" * 1000}}
    text = ",".join(json.dumps({**one, "runSettingId": f"sample-{number:06}"}) for number in range(20_000))
    file = io.BytesIO(f"[{text}]".encode())
    size = len(file.getvalue())
    del text
    check = settings_scan.ParameterCheck("workflow 1", {"parameterTemplate": ALIGNMENT}, {})
    sample = settings_scan.InputSample({}, 100)
    tracemalloc.start()
    for setting in settings_scan.read_settings(file):
        check.add(setting["runSettingId"], setting)
        sample.add(setting["runSettingId"], setting)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert size > 20_000_000
    assert peak < 3_000_000
    assert next(check.findings())["text"].count("sample-") == 20


# All at once


def test_a_single_run_is_checked_too(local: Any) -> None:
    default = {**DEFAULT, "parameters": {"sample_name": "a"}, "outputUri": "s3://missing-bucket/x"}
    found = preflight(OmicsCacheHook(), default, None)
    assert ("parameters", "container") in short(found)
    assert ("bucket", "s3://missing-bucket/x") in short(found)
    assert "is missing in the run" in texts(found)


@needs_newer_members
def test_everything_wrong_is_found_at_once(look: Any, local: Any) -> None:
    local.calls.clear()
    settings = [{"runSettingId": "a", "parameters": {"sample_nam": f"s3://{BUCKET}/gone"}}] * 2
    found = look(
        settings,
        cacheId="999",
        runGroupId="998",
        configurationName="none",
        workflowVersionName="v9",
        roleArn=ROLE.replace("omics", "none"),
        outputUri="s3://missing-bucket/x",
    )
    checks = [check for check, _ in short(found)]
    assert checks == ["settings", "workflow", "run_cache", "run_group", "configuration", "role", "bucket", "input"]
    with pytest.raises(
        PreflightError, match=r"The preflight found 8 errors\. Nothing was started:\n- settings: "
    ) as raised:
        findings.raise_if_any(found)
    assert raised.value.findings == found
    assert all(operation.startswith(("Get", "List")) for operation in local.calls)


def test_a_wrong_sample_size_is_refused(look: Any) -> None:
    for size in (-1, True, "5", None):
        with pytest.raises(OmicsParameterError, match="sample_size must be an integer, 0 or more"):
            look(options={"sample_size": size})
