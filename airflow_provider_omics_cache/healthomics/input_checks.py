"""Check inputs in S3: whether they exist in the right Region, and whether a run can read them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from airflow_provider_omics_cache.exceptions import OmicsApiError, OmicsParameterError
from airflow_provider_omics_cache.healthomics.buckets import look_at_bucket
from airflow_provider_omics_cache.healthomics.findings import archive_problem, error, not_checked, restore_of, warning
from airflow_provider_omics_cache.hooks.errors import as_api_error
from airflow_provider_omics_cache.hooks.s3 import bucket_and_key, check_bucket_uri, head_object, shown_uri

if TYPE_CHECKING:
    from airflow_provider_omics_cache.hooks.omics import OmicsCacheHook
    from airflow_provider_omics_cache.xcoms import PreflightFinding

#: Number of objects in a folder whose storage class is checked.
_LISTED_OBJECTS = 100
#: Characters that begin a pattern in an input of a Nextflow workflow.
_GLOB = "*?[{"
_NO_GLOB_ENGINES = frozenset({"WDL", "WDL_LENIENT", "CWL"})


class InputChecks:
    """Checks inputs, and collects the findings.

    :param hook: the hook.
    :param s3: the S3 client.
    :param engine: engine of the workflow, None if it is not known.
    """

    def __init__(self, hook: OmicsCacheHook, s3: Any, engine: str | None) -> None:
        self._hook = hook
        self._s3 = s3
        self._engine = engine
        self._findings: list[PreflightFinding] = []
        #: Whether a bucket exists in the right Region.
        self._buckets: dict[str, bool] = {}
        #: Inputs that the worker has no permission to read, by bucket and missing permission.
        self._denied: dict[tuple[str, str], list[tuple[str, OmicsApiError]]] = {}

    def findings(self) -> list[PreflightFinding]:
        """Return the findings. Inputs of one bucket for which the same permission is missing are one warning."""
        found = list(self._findings)
        for (_, permission), denied in self._denied.items():
            uri, problem = denied[0]
            others = f" (and {len(denied) - 1} more inputs in the same bucket)" if len(denied) > 1 else ""
            found.append(not_checked("input", uri, permission, f"{problem}{others}"))
        return found

    def look_at(self, uri: str, run: str) -> None:
        """Check one input: an object, a folder or a pattern.

        :param uri: its ``s3://`` URI.
        :param run: name of a run that has it.
        :raises OmicsApiError: S3 did not answer.
        """
        try:
            check_bucket_uri("an input", uri)
        except OmicsParameterError as problem:
            self._findings.append(error("input", shown_uri(uri), f"{problem} (in {run})"))
            return
        bucket, key = bucket_and_key(uri)
        if not self._is_bucket_right(bucket, run):
            return
        pattern = next((index for index, character in enumerate(key) if character in _GLOB), None)
        permission = "s3:ListBucket"
        try:
            if not key or key.endswith("/"):
                self._look_at_folder(uri, run)
            elif pattern is not None and self._engine not in _NO_GLOB_ENGINES:
                self._look_at_pattern(uri, key[:pattern], run)
            else:
                permission = "s3:GetObject"
                self._look_at_object(uri, run)
        except OmicsApiError as problem:
            if problem.is_denied:
                self._denied.setdefault((bucket, permission), []).append((uri, problem))
            elif problem.is_passing:
                raise
            else:
                self._findings.append(warning("input", uri, f"was not checked: {problem}"))

    def _is_bucket_right(self, bucket: str, run: str) -> bool:
        """Check each bucket only once. Denied access is not an error here, because the objects may be readable."""
        if bucket not in self._buckets:
            look_once = partial(look_at_bucket, self._s3, bucket, region=self._hook.client_region)
            rule = self._hook.patiently(look_once, service="s3").rule
            self._buckets[bucket] = rule is None
            if rule is not None:
                self._findings.append(error("input", f"s3://{bucket}", f"an input {rule} (first in {run})"))
        return self._buckets[bucket]

    def _look_at_object(self, uri: str, run: str) -> None:
        try:
            found = self._hook.patiently(partial(head_object, uri, s3=self._s3, extra_args={}), service="s3")
        except OmicsApiError as problem:
            if problem.http_status != 404:
                raise
            self._note_missing(uri, run)
            return
        archived = archive_problem(
            storage_class=found.get("StorageClass"),
            archive_status=found.get("ArchiveStatus"),
            **restore_of(found.get("Restore")),
        )
        if archived:
            self._findings.append(error("input", uri, f"{archived} (in {run})"))

    def _note_missing(self, uri: str, run: str) -> None:
        bucket, key = bucket_and_key(uri)
        try:
            is_folder = bool(self._objects(bucket, f"{key}/"))
        except OmicsApiError as problem:
            if not problem.is_denied:
                raise
            is_folder = False
        if is_folder:
            text = "is a folder, and its URI must end in a slash: HealthOmics loads a folder only with the slash"
            self._findings.append(warning("input", uri, f"{text} (in {run})"))
        else:
            self._findings.append(error("input", uri, f"does not exist (in {run})"))

    def _look_at_folder(self, uri: str, run: str) -> None:
        bucket, key = bucket_and_key(uri)
        objects = self._objects(bucket, key)
        if not objects:
            self._findings.append(
                error("input", uri, f"has no objects: no key in the bucket begins with it (in {run})")
            )
        for found in objects:
            restore = found.get("RestoreStatus") or {}
            archived = archive_problem(
                storage_class=found.get("StorageClass"),
                is_restored=bool(restore.get("RestoreExpiryDate")),
                is_restoring=bool(restore.get("IsRestoreInProgress")),
            )
            if archived:
                self._findings.append(error("input", uri, f"the object {found.get('Key')!r} {archived} (in {run})"))
                return

    def _look_at_pattern(self, uri: str, prefix: str, run: str) -> None:
        if not self._objects(bucket_and_key(uri)[0], prefix):
            self._findings.append(
                error("input", uri, f"matches no objects: no key in the bucket begins with {prefix!r} (in {run})")
            )

    def _objects(self, bucket: str, prefix: str) -> list[Mapping[str, Any]]:
        """List the first objects whose key begins with a prefix."""

        def list_objects() -> Any:
            with as_api_error("ListObjectsV2"):
                return self._s3.list_objects_v2(
                    Bucket=bucket,
                    Prefix=prefix,
                    MaxKeys=_LISTED_OBJECTS,
                    OptionalObjectAttributes=["RestoreStatus"],
                )

        objects: list[Mapping[str, Any]] = self._hook.patiently(list_objects, service="s3").get("Contents") or []
        return objects
