from __future__ import annotations

import importlib
from itertools import pairwise
from pathlib import Path

import pytest

EXAMPLES = sorted(path.stem for path in (Path(__file__).parents[2] / "example_dags").glob("*.py"))


@pytest.mark.parametrize("example", EXAMPLES)
def test_example_imports_on_every_version(example: str) -> None:
    importlib.import_module(example)


@pytest.mark.parametrize("example", EXAMPLES)
def test_the_ui_shows_what_an_example_does_and_what_it_takes(example: str) -> None:
    module = importlib.import_module(example)
    dag = getattr(module, f"omics_{example}")()
    assert dag.doc_md == module.__doc__
    assert dag.description
    assert set(dag.tags) == {"omics", "example"}
    params = [dag.params.get_param(name) for name in dag.params]
    assert params
    assert all(param.schema["type"] and param.description for param in params)
    assert "var.value" not in Path(module.__file__ or "").read_text()


@pytest.mark.parametrize("example", EXAMPLES)
def test_no_task_pushes_an_xcom_for_each_key_of_a_dict(example: str) -> None:
    dag = getattr(importlib.import_module(example), f"omics_{example}")()
    assert [task_id for task_id, task in dag.task_dict.items() if getattr(task, "multiple_outputs", False)] == []


def test_quickstart_reads_in_the_order_in_which_it_runs() -> None:
    dag = importlib.import_module("quickstart").omics_quickstart()
    expected = ["ensure_run_cache", "start_batch", "wait_for_submission", "print_runs"]
    assert list(dag.task_dict) == expected
    for task_id, next_task_id in pairwise(expected):
        assert next_task_id in dag.task_dict[task_id].downstream_task_ids


def _round(number: int) -> list[tuple[str, str]]:
    names = ("start_batch", "wait_for_submission", "wait_for_completion")
    tasks = [*(f"cohort.round_{number}.{name}" for name in names), "cohort.results"]
    return [*pairwise(tasks)]


GRAPHS = {
    "cohort": [
        ("cohort.freeze_settings", "cohort.ensure_run_cache"),
        ("cohort.ensure_run_cache", "cohort.preflight"),
        ("cohort.preflight", "cohort.round_1.start_batch"),
        *_round(1),
        *_round(2),
        *_round(3),
        ("cohort.round_1.wait_for_completion", "cohort.round_2.choose_samples"),
        ("cohort.round_2.choose_samples", "cohort.round_2.start_batch"),
        ("cohort.round_2.wait_for_completion", "cohort.round_3.choose_samples"),
        ("cohort.round_3.choose_samples", "cohort.round_3.start_batch"),
        ("cohort.results", "report"),
    ],
    "cohort_by_parts": [
        ("save_settings", "start_batch"),
        ("ensure_run_cache", "start_batch"),
        ("start_batch", "wait_for_submission"),
        ("wait_for_submission", "wait_for_completion"),
        ("wait_for_completion", "join_outputs"),
    ],
    "resubmit_failed": [
        ("cohort.freeze_settings", "cohort.preflight"),
        ("cohort.preflight", "cohort.round_1.start_batch"),
        *_round(1),
        *_round(2),
        ("cohort.round_1.wait_for_completion", "cohort.round_2.choose_samples"),
        ("cohort.round_2.choose_samples", "cohort.round_2.start_batch"),
    ],
    "fan_out": [
        ("save_settings", "start_batch"),
        ("start_batch", "wait_for_submission"),
        ("wait_for_submission", "wait_for_completion"),
        ("wait_for_completion", "make_groups"),
        ("make_groups", "find_outputs"),
        ("find_outputs", "count_outputs"),
    ],
    "cancel_on_failure": [
        ("save_settings", "start_batch"),
        ("start_batch", "wait_for_submission"),
        ("wait_for_submission", "wait_for_completion"),
        ("wait_for_completion", "cancel_batch"),
    ],
    "mapped_batches": [
        ("list_samplesheets", "run_samplesheet.save_settings"),
        ("ensure_run_cache", "run_samplesheet.start_batch"),
        ("run_samplesheet.save_settings", "run_samplesheet.start_batch"),
        ("run_samplesheet.start_batch", "run_samplesheet.wait_for_submission"),
        ("run_samplesheet.wait_for_submission", "run_samplesheet.wait_for_completion"),
        ("run_samplesheet.wait_for_completion", "run_samplesheet.cancel_batch"),
        ("run_samplesheet.wait_for_completion", "join_runs"),
    ],
    "preflight": [("save_settings", "preflight"), ("save_settings", "start_batch"), ("preflight", "start_batch")],
    "run_group": [
        ("ensure_run_group", "run_samples"),
        ("save_settings", "run_samples"),
        ("run_samples", "delete_run_group"),
    ],
    "single_run": [
        ("ensure_run_cache", "start_run"),
        ("start_run", "wait_for_run"),
        ("wait_for_run", "print_outputs"),
        ("print_outputs", "is_deletion_wanted"),
        ("is_deletion_wanted", "delete_run"),
        ("wait_for_run", "cancel_run"),
    ],
    "housekeeping": [("find_old_batches", "delete_batch")],
}


@pytest.mark.parametrize("example", GRAPHS)
def test_example_has_the_graph_that_its_page_tells_of(example: str) -> None:
    dag = getattr(importlib.import_module(example), f"omics_{example}")()
    assert set(dag.task_dict) == {task_id for edge in GRAPHS[example] for task_id in edge}
    for task_id, next_task_id in GRAPHS[example]:
        assert next_task_id in dag.task_dict[task_id].downstream_task_ids


def test_the_cancellation_is_a_teardown_of_the_batch() -> None:
    dag = importlib.import_module("cancel_on_failure").omics_cancel_on_failure()
    assert dag.task_dict["cancel_batch"].is_teardown
    assert dag.task_dict["start_batch"].is_setup
