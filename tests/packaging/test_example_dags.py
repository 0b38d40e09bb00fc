from __future__ import annotations

import importlib
from itertools import pairwise
from pathlib import Path

import pytest

EXAMPLES = sorted(path.stem for path in (Path(__file__).parents[2] / "example_dags").glob("*.py"))


@pytest.mark.parametrize("example", EXAMPLES)
def test_example_imports_on_every_version(example: str) -> None:
    importlib.import_module(example)


def test_quickstart_reads_in_the_order_in_which_it_runs() -> None:
    dag = importlib.import_module("quickstart").omics_quickstart()
    expected = ["ensure_run_cache", "start_batch", "wait_for_submission", "print_runs"]
    assert list(dag.task_dict) == expected
    for task_id, next_task_id in pairwise(expected):
        assert next_task_id in dag.task_dict[task_id].downstream_task_ids
