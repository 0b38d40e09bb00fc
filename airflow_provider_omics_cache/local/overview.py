"""The page that the local HealthOmics shows to a browser: batches, runs, run caches and run groups."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from html import escape
from itertools import chain, islice
from typing import Any

from airflow_provider_omics_cache.healthomics.states import RunStatus
from airflow_provider_omics_cache.local.batch import Batch
from airflow_provider_omics_cache.local.protocol import Response
from airflow_provider_omics_cache.local.region import Region, RunCache, RunGroup, ServiceContext
from airflow_provider_omics_cache.local.single_run import SingleRun

_MOST_BATCHES = 50
_MOST_RUN_CACHES = 50
_MOST_RUN_GROUPS = 50
_MOST_SINGLE_RUNS = 100
#: Number of batches, the newest first, whose runs are shown; and number of runs that are shown of each.
_BATCHES_WITH_RUNS = 10
_MOST_RUNS_OF_A_BATCH = 20
_MOST_TASKS_OF_A_RUN = 10
#: Maximum number of characters of a text that a client chose.
_LONGEST_TEXT = 200

_BATCHES = (
    "Batch",
    "Name",
    "Status",
    "Runs",
    "Not submitted yet",
    "Submissions failed",
    "Runs by state",
    "Workflow",
    "Run cache",
    "Created",
    "Failure",
)
_RUNS = ("Run", "Run setting", "Batch", "Status", "Started", "Ended", "Failure")
_SINGLE_RUNS = ("Run", "Name", "Status", "Workflow", "Run cache", "Run group", "Tasks", "Started", "Ended", "Failure")
_RUN_GROUPS = ("Run group", "Name", "Limits", "Active runs", "Waiting runs", "Created")
#: Columns with ids and dates, which a line break would make hard to read.
_UNBROKEN = frozenset({"Batch", "Run", "Run cache", "Run group", "Workflow", "Created", "Started", "Ended"})
_RUN_CACHES = ("Run cache", "Name", "Status", "Behavior", "Location", "Created")

_HEADERS = {
    "Content-Type": "text/html; charset=utf-8",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}
_STYLE = """
body { font: 14px/1.5 system-ui, sans-serif; margin: 2em auto; max-width: 90em; padding: 0 1em; color: #1f2a35 }
table { border-collapse: collapse; width: 100%; margin-bottom: 2em }
th, td { text-align: left; vertical-align: top; padding: .3em .8em .3em 0; border-bottom: 1px solid #d5dbe1 }
th { font-weight: 600 }
td { overflow-wrap: break-word; max-width: 30em }
td.unbroken { white-space: nowrap }
p { color: #5a6773 }
"""


def is_for_a_browser(method: str, path: str, query: str, headers: Mapping[str, str]) -> bool:
    """Return whether a browser requests the page. A signed request is one to S3.

    :param method: HTTP method.
    :param path: path of the request.
    :param query: query of the request.
    :param headers: headers of the request by lower-case name.
    """
    accepts_html = "text/html" in headers.get("accept", "").lower()
    return method == "GET" and path == "/" and not query and accepts_html and "authorization" not in headers


def page_answer(regions: Sequence[Region], context: ServiceContext, *, title: str) -> Response:
    """Return the page.

    :param regions: accounts and Regions, with every batch advanced to the present time.
    :param context: what the Regions share, with the present time.
    :param title: heading of the page.
    """
    now = context.clock.at(context.now)
    parts = [
        "<!doctype html><html lang='en'><head><meta charset='utf-8'><meta http-equiv='refresh' content='5'>",
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body><h1>{escape(title)}</h1>",
        f"<p>Service time {_time(now)}. All times are in UTC. The page is loaded again every 5 seconds.</p>",
    ]
    used = [
        region for region in regions if region.batches or region.run_caches or region.single_runs or region.run_groups
    ]
    if not used:
        parts.append("<p>There are no batches, single runs, run caches or run groups.</p>")
    for region in used:
        parts.append(f"<h2>Account {escape(region.account_id)}, Region {escape(region.name)}</h2>")
        parts += _region(region, context)
    parts.append("</body></html>")
    return Response(200, "".join(parts).encode(), dict(_HEADERS))


def _region(region: Region, context: ServiceContext) -> Iterator[str]:
    batches = list(reversed(region.batches.values()))
    shown = batches[:_MOST_BATCHES]
    yield _table("Batches", _BATCHES, [_batch(batch, context) for batch in shown], len(batches))
    caches = list(reversed(region.run_caches.values()))
    rows = [_run_cache(cache, context) for cache in caches[:_MOST_RUN_CACHES]]
    yield _table("Run caches", _RUN_CACHES, rows, len(caches))
    groups = [group for group in reversed(region.run_groups.values()) if not group.deleted]
    rows = [_run_group(group, context) for group in groups[:_MOST_RUN_GROUPS]]
    yield _table("Run groups", _RUN_GROUPS, rows, len(groups))
    singles = list(reversed(region.single_runs.values()))
    rows = [_single_run(run, context) for run in singles[:_MOST_SINGLE_RUNS]]
    yield _table("Single runs", _SINGLE_RUNS, rows, len(singles))
    runs = [row for batch in batches[:_BATCHES_WITH_RUNS] for row in _runs(batch, context)]
    submitted = sum(batch.submitted for batch in batches)
    yield _table("Runs of batches", _RUNS, runs, submitted)


def _batch(batch: Batch, context: ServiceContext) -> list[Any]:
    now = context.now
    counts = batch.submission_summary(now)
    states = {name.removesuffix("RunCount"): count for name, count in batch.run_summary(now).items() if count}
    return [
        batch.number,
        batch.name,
        batch.status(now),
        batch.total_runs(),
        counts["pendingStartSubmissionCount"],
        counts["failedStartSubmissionCount"],
        ", ".join(f"{count:,} {name}" for name, count in states.items()),
        batch.default.get("workflowId"),
        batch.default.get("cacheId"),
        context.clock.at(batch.created_at),
        batch.failure_reason,
    ]


def _runs(batch: Batch, context: ServiceContext) -> Iterator[list[Any]]:
    """Yield rows for a few submissions of a batch: first those that failed, or whose runs fail, then the others."""
    if batch.runs is None:
        return
    failures = sorted({*islice(batch.submission_failures, _MOST_RUNS_OF_A_BATCH), *_failed_runs(batch, context)})
    others = (index for index in range(batch.submitted) if index not in failures)
    for index in islice(chain(failures, others), _MOST_RUNS_OF_A_BATCH):
        yield _run(batch, batch.runs.ids[index], index, context)


def _failed_runs(batch: Batch, context: ServiceContext) -> list[int]:
    failing = islice(batch.runs_to_list(RunStatus.FAILED, context.now), _MOST_RUNS_OF_A_BATCH)
    return [index for index in failing if batch.run_status(index, context.now) == RunStatus.FAILED]


def _run(batch: Batch, run_setting_id: str, index: int, context: ServiceContext) -> list[Any]:
    if not batch.was_started(index):
        reason, message = batch.submission_failures[index]
        return [None, run_setting_id, batch.number, "not submitted", None, None, f"{reason}: {message}"]
    status = batch.run_status(index, context.now)
    ended, started = batch.end_time(index), batch.start_time(index)
    return [
        batch.run_numbers[index],
        run_setting_id,
        batch.number,
        status,
        context.clock.at(started) if started <= min(context.now, ended) else None,
        context.clock.at(ended) if ended <= context.now else None,
        ": ".join(batch.run_failures[index]) if status == RunStatus.FAILED else None,
    ]


def _single_run(run: SingleRun, context: ServiceContext) -> list[Any]:
    setting, course, status = run.setting(), run.course(), run.status(context.now)
    started, ended, failure = course.started_at, course.ended_at, run.failure()
    tasks = [
        f"{task.definition.name}: {'from the run cache' if task.cache_uri is not None else task.status}"
        for task in islice(course.tasks_at(context.now), _MOST_TASKS_OF_A_RUN)
    ]
    return [
        run.number,
        setting.get("name"),
        status,
        setting.get("workflowId"),
        setting.get("cacheId"),
        setting.get("runGroupId"),
        ", ".join(tasks),
        context.clock.at(started) if started <= min(context.now, ended) else None,
        context.clock.at(ended) if ended <= context.now else None,
        ": ".join(failure) if status == RunStatus.FAILED and failure is not None else None,
    ]


def _run_group(group: RunGroup, context: ServiceContext) -> list[Any]:
    limits = ", ".join(f"{name} {limit:,}" for name, limit in group.limits.items())
    active, waiting = group.queue.counts(context.now)
    shown = [active, waiting] if group.is_limited() else [None, None]
    return [group.id, group.name, limits, *shown, context.clock.at(group.created_at)]


def _run_cache(cache: RunCache, context: ServiceContext) -> list[Any]:
    status = "DELETED" if cache.deleted else "ACTIVE"
    return [cache.id, cache.name, status, cache.behavior, cache.location, context.clock.at(cache.created_at)]


def _table(title: str, head: Sequence[str], rows: Sequence[Sequence[Any]], total: int) -> str:
    heading = f"<h3>{title}</h3>" if len(rows) == total else f"<h3>{title} ({len(rows):,} of {total:,})</h3>"
    if not rows:
        return f"{heading}<p>None.</p>"
    names = "".join(f"<th scope='col'>{name}</th>" for name in head)
    starts = ["<td class='unbroken'>" if name in _UNBROKEN else "<td>" for name in head]
    lines = "".join(
        f"<tr>{''.join(f'{start}{_text(value)}</td>' for start, value in zip(starts, row, strict=True))}</tr>"
        for row in rows
    )
    return f"{heading}<table><thead><tr>{names}</tr></thead><tbody>{lines}</tbody></table>"


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, datetime):
        return _time(value)
    text = str(value)
    return escape(text if len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]}...")


def _time(value: datetime) -> str:
    return f"{value:%Y-%m-%d %H:%M:%S}"
