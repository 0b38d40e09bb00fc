"""What a batch's runs are checked for after StartRunBatch has answered."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from airflow_provider_omics_cache.local.batch import Batch
from airflow_provider_omics_cache.local.errors import ServiceError, validation_error
from airflow_provider_omics_cache.local.ids import number_of
from airflow_provider_omics_cache.local.protocol import dump_json, load_json_array
from airflow_provider_omics_cache.local.region import Region, Surroundings, Workflow
from airflow_provider_omics_cache.local.run_overrides import RunOverrides
from airflow_provider_omics_cache.local.start_run_quota import StartRunShare

_MAX_PARAMETER_BYTES = 256_000


class RegionSubmitter:
    """Submits the runs of the batches of one Region."""

    def __init__(self, region: Region, around: Surroundings) -> None:
        self.faults = around.faults
        self._region = region
        self._around = around

    def load_settings(self, batch: Batch) -> RunOverrides:
        """Return the checked run settings; raise a ServiceError whose text is the batch's failureReason."""
        given = self._read_settings_file(batch) if batch.inline_settings is None else batch.inline_settings
        settings = RunOverrides(given)
        distinct = len(set(settings.ids))
        if distinct != len(settings):
            raise validation_error(f"Expected {len(settings)} unique runSettingIds but there were {distinct}")
        return settings

    def failure_of_all(self, batch: Batch) -> tuple[str, str] | None:
        """Return reason and message when no run of the batch can be submitted."""
        around, default = self._around, batch.default
        workflow_id = default["workflowId"]
        if around.workflows.get(workflow_id, None if around.settings.strict_workflows else Workflow()) is None:
            return "ResourceNotFoundException", f"Workflow {workflow_id} does not exist"
        run_group_id = default.get("runGroupId")
        if run_group_id is not None and not around.run_groups.get(run_group_id, not around.settings.strict_run_groups):
            return "ResourceNotFoundException", f"Run group {run_group_id} does not exist"
        cache_id = default.get("cacheId")
        if cache_id is not None:
            cache = self._region.run_caches.get(number_of(cache_id))
            if cache is None or cache.deleted:
                return "ResourceNotFoundException", f"Run cache {cache_id} does not exist"
        return None

    def failure_of_run(self, batch: Batch, index: int) -> tuple[str, str] | None:
        """Return reason and message when this run cannot be submitted."""
        assert batch.runs is not None
        kept, limit = self._region.kept_runs, batch.settings.max_runs_kept
        if kept >= limit and batch.default.get("retentionMode") != "REMOVE":
            return "ServiceQuotaExceededException", f"The Region has {kept} runs but {limit:.0f} runs is the max."
        workflow = self._around.workflows.get(batch.default["workflowId"])
        template = None if workflow is None else workflow.parameter_template
        if template is None and batch.parameters_fit(_MAX_PARAMETER_BYTES) and "outputUri" in batch.default:
            return None
        run = batch.runs[index]
        output_uri = run.get("outputUri", batch.default.get("outputUri"))
        if output_uri is None:
            return "ValidationException", "outputUri is neither in the run setting nor in the default one"
        parameters = {**batch.default.get("parameters", {}), **run.get("parameters", {})}
        if len(dump_json(parameters)) > _MAX_PARAMETER_BYTES:
            return "ValidationException", f"The parameters exceed {_MAX_PARAMETER_BYTES} bytes"
        if template is not None:
            unknown = sorted(parameters.keys() - template.keys())
            if unknown:
                return "ValidationException", f"Parameters not in the workflow's template: {_some(unknown)}"
            required = {name for name, about in template.items() if not about.get("optional", False)}
            missing = sorted(required - parameters.keys())
            if missing:
                return "ValidationException", f"Parameters missing for the workflow: {_some(missing)}"
        return None

    def new_run_number(self) -> int:
        """Return the id of a new run."""
        freed = self._region.freed_run_numbers
        self._region.kept_runs += 1
        if self._around.settings.reuse_run_ids and freed:
            return freed.pop(0)
        return next(self._around.ids)

    def share_start_runs(self, runs: int, *, at: float, per_second: float) -> StartRunShare:
        """Let a batch take part in the Region's StartRun quota."""
        return self._region.start_run_quota.join(runs, at=at, per_second=per_second)

    def _read_settings_file(self, batch: Batch) -> Iterator[dict[str, Any]]:
        assert batch.settings_uri is not None
        try:
            content, etag = self._around.object_store.read(self._region.account_id, batch.settings_uri)
        except LookupError:
            raise validation_error("The s3UriSettings object cannot be accessed") from None
        if etag != batch.settings_etag:
            raise validation_error(
                f"Expected s3UriConfigs etag: {batch.settings_etag} but was: {etag}. "
                "s3UriConfigs have changed since calling StartRunBatch"
            )
        number, limit = 0, batch.settings.max_runs_in_batch
        first_error: ServiceError | None = None
        try:
            text = content.decode("utf-8")
            del content  # as large as the text
            for number, setting in enumerate(load_json_array(text), start=1):
                if first_error is None and number <= limit:
                    try:
                        checked = self._around.check_setting(setting, f"runConfigurations.{number}.member")
                        yield check_documents(checked)
                    except ServiceError as error:
                        first_error = error
        except ValueError:
            raise validation_error("Invalid JSON format in run configurations") from None
        if number > limit:
            raise validation_error(f"Batch has {number} runs but {limit} runs is the max.")
        if not number:
            raise validation_error("Batch has 0 runs but 1 run is the min.")
        if first_error is not None:
            raise first_error


def check_documents(setting: dict[str, Any]) -> dict[str, Any]:
    """Return the setting; raise a ValidationException unless parameters and engineSettings are objects."""
    for name in ("parameters", "engineSettings"):
        if name in setting and not isinstance(setting[name], dict):
            raise validation_error(f"1 validation error detected: {name} must be a JSON object")
    return setting


def _some(names: list[str]) -> str:
    shown = ", ".join(name[:64] for name in names[:5])
    return shown if len(names) <= 5 else f"{shown} and {len(names) - 5} more"
