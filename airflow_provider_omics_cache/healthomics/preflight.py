"""Check a batch or a single run before it is started, and find everything at once that AWS would refuse later.

This module and :mod:`.input_checks` make the calls, which only read. :mod:`.findings` and :mod:`.settings_scan` decide
what the answers mean.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property, partial
from itertools import islice
from typing import IO, Any, TypeVar, cast

from airflow_provider_omics_cache.exceptions import (
    OmicsApiError,
    OmicsParameterError,
    OmicsRequestError,
    OmicsVersionError,
)
from airflow_provider_omics_cache.healthomics.buckets import look_at_bucket
from airflow_provider_omics_cache.healthomics.findings import (
    DEFAULT_MOST_RUNS,
    DEFAULT_START_RUN_PER_SECOND,
    check_active,
    check_runs_kept,
    check_submission_time,
    check_trust,
    error,
    not_checked,
)
from airflow_provider_omics_cache.healthomics.input_checks import InputChecks
from airflow_provider_omics_cache.healthomics.run_caches import account_of
from airflow_provider_omics_cache.healthomics.settings import (
    MAX_RUN_SETTINGS,
    check_cache_behavior,
    check_member,
    check_run_settings,
    unknown_key_rule,
)
from airflow_provider_omics_cache.healthomics.settings_scan import (
    InputSample,
    OutputBuckets,
    ParameterCheck,
    name_of,
    read_settings,
)
from airflow_provider_omics_cache.hooks.client import LARGEST_PAGE, LONGEST_SILENCE, Answer
from airflow_provider_omics_cache.hooks.errors import as_api_error
from airflow_provider_omics_cache.hooks.omics import OmicsCacheHook
from airflow_provider_omics_cache.hooks.s3 import (
    bucket_and_key,
    check_bucket_uri,
    open_object,
    s3_client,
    shown_uri,
)
from airflow_provider_omics_cache.hooks.services import connection_of, impatient_client
from airflow_provider_omics_cache.xcoms import PreflightFinding

T = TypeVar("T")

#: Default number of ``s3://`` values of parameters that are checked.
SAMPLE_SIZE = 100
#: Maximum number of pages of ListRuns that are read to count the runs that are kept.
_MOST_PAGES = 10
#: Codes of Service Quotas: StartRun calls per second, and runs kept in a Region.
_START_RUN_QUOTA = "L-24A3B174"
_MOST_RUNS_QUOTA = "L-C9679DBC"
#: Maximum number of errors of the settings in a file that are listed.
_MOST_ERRORS_OF_FILE = 20

RunSettings = Sequence[Mapping[str, Any]] | str


def preflight(
    hook: OmicsCacheHook,
    default_run_setting: Mapping[str, Any],
    run_settings: RunSettings | None,
    *,
    settings_s3_prefix: str | None = None,
    s3: Any = None,
    sample_size: int = SAMPLE_SIZE,
) -> list[PreflightFinding]:
    """Look for everything that would make a batch, its submissions or its runs fail. Nothing is written or started.

    If the caller's permissions do not allow a check, the finding is a warning that names the permission. The number of
    calls is limited: it does not grow with the number of runs beyond the sample of the inputs.

    :param hook: the hook.
    :param default_run_setting: the settings that all runs share, with the members of AWS's ``DefaultRunSetting``.
    :param run_settings: the settings of each run: a list of dicts with the members of AWS's ``InlineSetting``, or the
        ``s3://`` URI of a JSON array of them, which is read. None for a single run, which has only the default setting.
    :param settings_s3_prefix: ``s3://`` URI below which more than 100 settings will be uploaded. Its bucket is checked.
        Default: None.
    :param s3: the S3 client. Default: a client with the connection of the hook.
    :param sample_size: maximum number of ``s3://`` values of parameters that are checked. They are spread over the
        batch. 0 checks no value. Default 100.
    :return: the findings. The list is empty if everything is right.
    :raises OmicsParameterError: ``sample_size`` is not valid.
    :raises OmicsApiError: HealthOmics or S3 did not answer a call.
    """
    check_sample_size(sample_size)
    # The first use of the hook makes its client, which may call STS for credentials.
    hook.patiently(lambda: hook.client_region, service="sts")
    if s3 is None:
        s3 = s3_client(**connection_of(hook))
    return _Preflight(hook, s3, default_run_setting, settings_s3_prefix, sample_size).run(run_settings)


def check_sample_size(value: Any) -> None:
    """Check the parameter ``sample_size``.

    :param value: the value.
    :raises OmicsParameterError: the value is not an integer, or is negative.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise OmicsParameterError("sample_size", "must be an integer, 0 or more", value)


class _Preflight:
    def __init__(
        self,
        hook: OmicsCacheHook,
        s3: Any,
        default_run_setting: Mapping[str, Any],
        settings_s3_prefix: str | None,
        sample_size: int,
    ) -> None:
        self._hook = hook
        self._s3 = s3
        self._settings_s3_prefix = settings_s3_prefix
        self._sample_size = sample_size
        self._findings: list[PreflightFinding] = []
        is_dict = isinstance(default_run_setting, Mapping)
        self._given_default = default_run_setting
        self._default: Mapping[str, Any] = default_run_setting if is_dict else {}
        #: URI whose bucket is checked, with the bucket's expected owner, by the name of the resource.
        self._buckets: dict[str, tuple[str, str | None]] = {}
        self._count: int | None = None
        self._engine: str | None = None
        self._has_quotas = True
        self._errors_of_file = 0

    def run(self, run_settings: RunSettings | None) -> list[PreflightFinding]:
        if run_settings is not None:
            self._check_rules(run_settings)
        workflow = self._check_workflow()
        parameters = None if workflow is None else ParameterCheck(*workflow, self._default)
        sample = InputSample(self._default, self._sample_size)
        outputs = OutputBuckets(self._default)
        self._scan(run_settings, parameters, sample, outputs)
        self._check_run_cache()
        self._check_run_group()
        self._check_configuration()
        self._check_role()
        self._check_buckets(run_settings, outputs)
        inputs = InputChecks(self._hook, self._s3, self._engine)
        for uri, run in sample.values().items():
            inputs.look_at(uri, run)
        self._findings += inputs.findings()
        self._check_quotas()
        return self._findings

    # Settings

    def _check_rules(self, run_settings: RunSettings) -> None:
        shape = self._hook.describe_shape("DefaultRunSetting")
        broken = check_member(
            "default_run_setting",
            self._given_default,
            shape=shape,
            unknown_rule=unknown_key_rule("DefaultRunSetting"),
        )
        with self._noted("settings", "default_run_setting"):
            broken.raise_if_any()
            check_cache_behavior("default_run_setting", self._default)
        if isinstance(run_settings, str) and run_settings.startswith("s3://"):
            return
        found = check_run_settings(
            run_settings,
            shape=self._hook.describe_shape("InlineSetting"),
            default_run_setting=self._default,
            file=cast("IO[bytes]", _Nowhere()),
            unknown_rule=unknown_key_rule("InlineSetting"),
        )
        with self._noted("settings", "run_settings"):
            found.broken.raise_if_any()

    def _scan(
        self,
        run_settings: RunSettings | None,
        parameters: ParameterCheck | None,
        sample: InputSample,
        outputs: OutputBuckets,
    ) -> None:
        count = 0
        seen: set[str] | None = set() if isinstance(run_settings, str) else None
        for index, setting in enumerate(self._each(run_settings)):
            count += 1
            run = "the run" if run_settings is None else name_of(setting, index)
            if seen is not None:
                self._check_setting_of_file(str(run_settings), index, run, setting, seen)
            if isinstance(setting, Mapping):
                if parameters is not None:
                    parameters.add(run, setting)
                sample.add(run, setting)
                outputs.add(setting)
        if count:
            self._count = count
        if self._errors_of_file > _MOST_ERRORS_OF_FILE:
            more = self._errors_of_file - _MOST_ERRORS_OF_FILE
            self._add(error("settings", str(run_settings), f"{more:,} more errors in its settings are not listed"))
        if parameters is not None:
            self._findings += parameters.findings()

    def _each(self, run_settings: RunSettings | None) -> Iterator[Any]:
        if run_settings is None:
            yield {}
        elif not isinstance(run_settings, str):
            # A value of another type was already reported as an error.
            yield from run_settings if isinstance(run_settings, Sequence) else ()
        elif run_settings.startswith("s3://"):
            yield from self._each_of_file(run_settings)

    def _each_of_file(self, uri: str) -> Iterator[Any]:
        try:
            opened = open_object(uri, parameter="run_settings", s3=self._s3)
            with opened as (body, _):
                count = 0
                try:
                    for setting in read_settings(body):
                        count += 1
                        if count > MAX_RUN_SETTINGS:
                            self._add(
                                error(
                                    "settings",
                                    uri,
                                    f"has more than {MAX_RUN_SETTINGS:,} settings: split it into several batches",
                                )
                            )
                            return
                        yield setting
                    if not count:
                        self._add(error("settings", uri, "has no settings: it must have at least one"))
                except ValueError as problem:
                    self._add(error("settings", uri, f"must be a JSON array of run settings: {problem}"))
        except OmicsParameterError as problem:
            self._add(error("settings", uri, str(problem)))
        except OmicsApiError as problem:
            if not problem.is_denied:
                raise
            self._add(not_checked("settings", uri, "s3:GetObject", problem))

    def _check_setting_of_file(self, uri: str, index: int, run: str, setting: Any, seen: set[str]) -> None:
        """Check a setting in the user's file: its id, the names of its members, and whether it has an outputUri."""
        if not isinstance(setting, Mapping):
            self._add_few(error("settings", uri, f"[{index}] must be a dict; got {type(setting).__name__}"))
            return
        if run == f"[{index}]":
            self._add_few(error("settings", uri, f"[{index}].runSettingId is required"))
        elif run in seen:
            self._add_few(
                error("settings", uri, f"[{index}].runSettingId must be unique; an earlier setting has {run!r} too")
            )
        seen.add(run)
        if unknown := sorted(setting.keys() - self._inline_members):
            text = f"[{index}] {unknown_key_rule('InlineSetting')}; got {', '.join(unknown)[:200]}"
            self._add_few(error("settings", uri, text))
        if not (setting.get("outputUri") or self._default.get("outputUri")):
            text = f"[{index}].outputUri must be given here or in default_run_setting"
            self._add_few(error("settings", uri, text))

    @cached_property
    def _inline_members(self) -> frozenset[str]:
        return frozenset(self._hook.describe_shape("InlineSetting")["members"])

    # HealthOmics

    def _check_workflow(self) -> tuple[str, Answer] | None:
        """Check the workflow and its version. Return the title and the answer of the one whose template applies."""
        workflow_id = self._default.get("workflowId")
        if not workflow_id:
            return None
        members: dict[str, Any] = {
            "workflow_type": self._default.get("workflowType"),
            "workflow_owner_id": self._default.get("workflowOwnerId"),
            "max_silence": LONGEST_SILENCE,
        }
        title = f"workflow {workflow_id}"
        get = partial(self._hook.get_workflow, workflow_id=workflow_id, **members)
        answer = self._get("workflow", title, "omics:GetWorkflow", get)
        if answer is not None:
            self._engine = answer.get("engine")
            self._findings += check_active("workflow", title, answer.get("status"))
        version_name = self._default.get("workflowVersionName")
        if not version_name:
            return None if answer is None else (title, answer)
        title = f"{title}, version {version_name}"
        get = partial(self._hook.get_workflow_version, workflow_id=workflow_id, version_name=version_name, **members)
        version = self._get("workflow", title, "omics:GetWorkflowVersion", get)
        if version is None:
            return None
        self._findings += check_active("workflow", title, version.get("status"))
        return title, version

    def _check_run_cache(self) -> None:
        cache_id = self._default.get("cacheId")
        if not cache_id:
            return
        title = f"run cache {cache_id}"
        get = partial(self._hook.get_run_cache, run_cache_id=cache_id, max_silence=LONGEST_SILENCE)
        answer = self._get("run_cache", title, "omics:GetRunCache", get)
        if answer is None:
            return
        self._findings += check_active("run_cache", title, answer.get("status"))
        if uri := answer.get("cacheS3Uri"):
            self._buckets[title] = (uri, answer.get("cacheBucketOwnerId") or account_of(answer))

    def _check_run_group(self) -> None:
        group_id = self._default.get("runGroupId")
        if group_id:
            get = partial(self._hook.get_run_group, run_group_id=group_id, max_silence=LONGEST_SILENCE)
            self._get("run_group", f"run group {group_id}", "omics:GetRunGroup", get)

    def _check_configuration(self) -> None:
        name = self._default.get("configurationName")
        if not name:
            return
        title = f"configuration {name}"
        get = partial(self._hook.get_configuration, name=name, max_silence=LONGEST_SILENCE)
        answer = self._get("configuration", title, "omics:GetConfiguration", get)
        if answer is not None:
            self._findings += check_active("configuration", title, answer.get("status"), absent="ACTIVE")

    def _get(self, check: str, subject: str, permission: str, get: Callable[[], T]) -> T | None:
        """Get a resource of HealthOmics. If it cannot be checked, add a finding and return None."""
        try:
            return get()
        except OmicsVersionError as problem:
            self._add(not_checked(check, subject, permission, problem))
        except (OmicsParameterError, OmicsRequestError) as problem:
            self._add(error(check, subject, str(problem)))
        except OmicsApiError as problem:
            if problem.is_not_found:
                self._add(error(check, subject, f"does not exist in {self._hook.client_region}: {problem}"))
            elif problem.is_denied:
                self._add(not_checked(check, subject, permission, problem))
            else:
                raise
        return None

    # The role

    def _check_role(self) -> None:
        role_arn = self._default.get("roleArn")
        if not isinstance(role_arn, str) or ":role/" not in role_arn:
            return  # the check of the settings reports a wrong ARN
        try:
            iam = impatient_client(self._hook, "iam")
            role = _call(iam, "get_role", "GetRole", {"RoleName": role_arn.rpartition("/")[2]})["Role"]
        except OmicsApiError as problem:
            if problem.code == "NoSuchEntity":
                self._add(error("role", role_arn, "does not exist in the account of the connection"))
            else:
                self._add(not_checked("role", role_arn, "iam:GetRole", problem))
            return
        if role.get("Arn") not in {None, role_arn}:
            self._add(error("role", role_arn, f"does not exist; the role with this name has the ARN {role['Arn']}"))
            return
        self._findings += check_trust(role_arn, role.get("AssumeRolePolicyDocument"))

    # S3

    def _check_buckets(self, run_settings: RunSettings | None, outputs: OutputBuckets) -> None:
        named = {uri: ("outputUri", owner) for uri, owner in outputs.uris().items()}
        named.update({uri: (title, owner) for title, (uri, owner) in self._buckets.items()})
        if self._settings_s3_prefix:
            named.setdefault(self._settings_s3_prefix, ("settings_s3_prefix", None))
        if isinstance(run_settings, str) and run_settings.startswith("s3://"):
            named.setdefault(run_settings, ("run_settings", None))
        looked_at = set()
        for uri, (parameter, owner) in named.items():
            try:
                check_bucket_uri(parameter, uri)
            except OmicsParameterError as problem:
                self._add(error("bucket", shown_uri(str(uri)), str(problem)))
                continue
            bucket = bucket_and_key(uri)[0]
            if (bucket, owner) in looked_at:
                continue
            looked_at.add((bucket, owner))
            look_once = partial(look_at_bucket, self._s3, bucket, region=self._hook.client_region, owner=owner)
            look = self._hook.patiently(look_once, service="s3")
            if look.rule is not None:
                self._add(error("bucket", uri, f"{parameter} {look.rule}"))
            elif look.is_denied:
                reason = f"access to the bucket of {parameter} was denied"
                self._add(not_checked("bucket", uri, "s3:ListBucket", reason))

    # Quotas

    def _check_quotas(self) -> None:
        if self._count is None:
            return
        if self._count > 1:
            rate = self._quota(_START_RUN_QUOTA, "StartRun rate")
            self._findings += check_submission_time(self._count, rate or DEFAULT_START_RUN_PER_SECOND)
        if self._default.get("retentionMode") == "REMOVE":
            return  # the service then removes the oldest runs with this mode
        try:
            listed = self._hook.list_runs(max_results=LARGEST_PAGE, max_silence=LONGEST_SILENCE)
            kept = sum(1 for _ in islice(listed, _MOST_PAGES * LARGEST_PAGE))
        except OmicsApiError as problem:
            if not problem.is_denied:
                raise
            self._add(not_checked("quota", "runs kept", "omics:ListRuns", problem))
            return
        cap = self._quota(_MOST_RUNS_QUOTA, "runs kept")
        self._findings += check_runs_kept(
            self._count,
            kept=kept,
            is_all=kept < _MOST_PAGES * LARGEST_PAGE,
            cap=cap or DEFAULT_MOST_RUNS,
            is_own_cap=cap is not None,
        )

    def _quota(self, code: str, subject: str) -> float | None:
        """Return a quota of the account. Return None if Service Quotas does not have it, or cannot be called."""
        if not self._has_quotas:
            return None
        try:
            members = {"ServiceCode": "omics", "QuotaCode": code}
            answer = _call(self._quotas, "get_service_quota", "GetServiceQuota", members)
        except OmicsApiError as problem:
            if problem.code != "NoSuchResourceException":
                self._has_quotas = False
                text = f"AWS's default quotas are used instead: {problem}"
                self._add(not_checked("quota", subject, "servicequotas:GetServiceQuota", text))
            return None
        value = answer.get("Quota", {}).get("Value")
        return float(value) if value else None

    @cached_property
    def _quotas(self) -> Any:
        return impatient_client(self._hook, "service-quotas")

    # Findings

    @contextmanager
    def _noted(self, check: str, subject: str) -> Iterator[None]:
        """Turn a parameter's error inside the ``with`` block into a finding."""
        try:
            yield
        except OmicsParameterError as problem:
            self._add(error(check, subject, str(problem)))

    def _add(self, finding: PreflightFinding) -> None:
        self._findings.append(finding)

    def _add_few(self, finding: PreflightFinding) -> None:
        """Add an error of one setting of the user's file. After the first 20 errors, only count it."""
        self._errors_of_file += 1
        if self._errors_of_file <= _MOST_ERRORS_OF_FILE:
            self._add(finding)


class _Nowhere:
    """A file that discards what is written to it."""

    def write(self, data: bytes) -> int:
        return len(data)


def _call(client: Any, method: str, operation: str, members: Mapping[str, Any]) -> dict[str, Any]:
    with as_api_error(operation):
        answer: dict[str, Any] = getattr(client, method)(**members)
    return answer
