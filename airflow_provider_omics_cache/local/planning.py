"""Plan the course of a run that is started: its run cache, its run group and injected faults change it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from airflow_provider_omics_cache.local.assumptions import Settings
from airflow_provider_omics_cache.local.cache_entries import key_of
from airflow_provider_omics_cache.local.course import Course, TaskDefinition
from airflow_provider_omics_cache.local.groups import existing_run_group
from airflow_provider_omics_cache.local.protocol import number_of
from airflow_provider_omics_cache.local.region import Region, RunCache, ServiceContext
from airflow_provider_omics_cache.local.run_of_batch import RunOfBatch
from airflow_provider_omics_cache.local.single_run import SingleRun


def plan_course(
    region: Region,
    context: ServiceContext,
    setting: dict[str, Any],
    *,
    name: str | None,
    tasks: Sequence[TaskDefinition],
    submitted_at: float,
    settings: Settings,
) -> Course:
    """Return the course of a run.

    :param setting: its effective settings, as the members of StartRun.
    :param name: its runSettingId in a batch; the name of a single run.
    :param tasks: the tasks of its workflow.
    :param submitted_at: when it is submitted.
    :param settings: durations.
    """
    course = Course(settings, submitted_at, tasks, submitted_at + settings.run_pending_seconds)
    cache = cache_of(region, setting)
    if cache is not None:
        course.uri_of_entry = cache.entries.uri_of_entry
        course.hits = cache.entries.find(key_of(setting, tasks), len(tasks), at=submitted_at)
    fault = context.faults.task_failure(name, [task.name for task in tasks[len(course.hits) :]])
    if fault is not None:
        course.failing_task = next(index for index, task in enumerate(tasks) if task.name == fault.task_name)
        course.failure = fault.reason, fault.message
    run_group_id = setting.get("runGroupId")
    group = None if run_group_id is None else existing_run_group(region, context, run_group_id)
    if group is not None:
        course.longest_seconds = group.limits.get("maxDuration", float("inf")) * 60
        if group.is_limited():
            group.queue.add(course, setting.get("priority", 0))
    course.plan()
    return course


def needs_a_course(
    region: Region, context: ServiceContext, setting: dict[str, Any], tasks: Sequence[TaskDefinition]
) -> bool:
    """Return whether runs of a batch may differ from each other in their times.

    :param setting: the defaultRunSetting.
    :param tasks: the tasks of the workflow.
    """
    if any(task.seconds is not None for task in tasks) or context.faults.has_task_failures():
        return True
    run_group_id = setting.get("runGroupId")
    group = None if run_group_id is None else existing_run_group(region, context, run_group_id)
    if group is not None and (group.is_limited() or "maxDuration" in group.limits):
        return True
    cache = cache_of(region, setting)
    return cache is not None and cache.entries.any()


def export(region: Region, context: ServiceContext, run: SingleRun | RunOfBatch) -> None:
    """Add the entries that a run exports when it has ended to its run cache.

    :param run: the run.
    """
    course, common = run.course(), run.common_setting()
    cache = cache_of(region, common)
    if cache is None or not keeps_entries(cache, common, course):
        return
    cache.entries.add(
        key_of(run.setting(), course.tasks),
        run.number,
        course.tasks_to_export(),
        at=course.ended_at,
        max_objects=context.settings.cache_entries_in_s3,
        task_arn=region.arn("task/"),
    )


def keeps_entries(cache: RunCache, setting: dict[str, Any], course: Course) -> bool:
    """Return whether the outputs of a run that has ended are cached.

    :param cache: its run cache.
    :param setting: its settings, or those that it has in common with the runs of its batch.
    :param course: its course.
    """
    behavior = setting.get("cacheBehavior", cache.behavior)
    return behavior == "CACHE_ALWAYS" or course.cancelled_at is not None or course.failure_at_end() is not None


def cache_of(region: Region, setting: dict[str, Any]) -> RunCache | None:
    """Return the run cache of a run, None without one.

    :param setting: its settings, or those that it has in common with the runs of its batch.
    """
    cache = region.run_caches.get(number_of(setting.get("cacheId", "")))
    return None if cache is None or cache.deleted else cache
