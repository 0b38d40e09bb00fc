"""``python -m tests.faults``: its numbers, replays, and bad input."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import HAS_AIOBOTOCORE, HAS_BATCHES

if not (HAS_BATCHES and HAS_AIOBOTOCORE):
    pytest.skip("the schedules need batches and aiobotocore", allow_module_level=True)

from tests.faults import __main__ as command
from tests.faults.minimise import shorten
from tests.faults.publish import publish
from tests.faults.schedule import PROFILES, Fault, Schedule


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--schedules", "many"], "--schedules: must be a whole number from 1 to 1,000,000; got 'many'"),
        (["--schedules", "0"], "--schedules: must be a whole number from 1 to 1,000,000; got '0'"),
        (["--seed", "-1"], "--seed: must be a whole number of at least 0; got '-1'"),
        (["--scenario", "nonsense"], "--scenario: invalid choice: 'nonsense'"),
        (["--profile", "kind"], "--profile: invalid choice: 'kind'"),
        (["--replay", "7"], "--replay needs --profile and --scenario"),
        (
            ["--replay", "7", "--profile", "torn", "--scenario", "cohort", "--faults", "[3]"],
            "--faults: must be the JSON",
        ),
    ],
)
def test_bad_input_is_one_line(arguments: list[str], line: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        command.main(arguments)
    shown = capsys.readouterr().err
    assert exit_.value.code == 2
    assert line in shown
    assert len(shown.splitlines()) == 1


def test_a_replay_shows_the_faults_and_the_calls(capsys: pytest.CaptureFixture[str]) -> None:
    faults = [{"kind": "throttle", "operation": "StartRunBatch"}]
    arguments = ["--replay", "5", "--profile", "honest", "--scenario", "start_batch", "--faults", json.dumps(faults)]
    assert command.main(arguments) == 0
    shown = capsys.readouterr().out
    assert f"faults: {json.dumps(faults)}" in shown
    assert "StartRunBatch 1: 429" in shown
    assert "no violation" in shown


def test_the_numbers_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "RESULTS", tmp_path / "build" / "faults.json")
    monkeypatch.setattr(command, "ProcessPoolExecutor", _InThisProcess)
    command.main(["--schedules", "3", "--profile", "honest", "--scenario", "submission_sensor"])
    results = json.loads(command.RESULTS.read_text())
    (profile,) = results["profiles"]
    assert (profile["profile"], profile["schedules"]) == ("honest", 3)
    assert profile["scenarios"] == {"submission_sensor": 3}
    assert profile["faults"]


class _InThisProcess:
    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __enter__(self) -> _InThisProcess:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def submit(self, function: Any, *arguments: Any) -> _InThisProcess:
        self._result = function(*arguments)
        return self

    def result(self) -> Any:
        return self._result


def test_a_schedule_is_shortened_to_what_violates() -> None:
    faults = tuple(Fault(kind, "GetBatch", times=5) for kind in ("throttle", "drop_after", "slow"))
    shorter = shorten(
        Schedule("cohort", "anything", 1, {}, faults),
        lambda schedule: any(fault.kind == "slow" and fault.times >= 2 for fault in schedule.faults),
    )
    assert shorter.faults == (Fault("slow", "GetBatch", times=2),)


def test_a_table_needs_a_whole_run_without_violations(tmp_path: Path) -> None:
    results = tmp_path / "faults.json"
    profile = {"schedules": 10_000, "calls": 5, "violations": {}, "known": {"late": 1}, "faults": {"cut": 2, "html": 3}}

    def write(**changed: object) -> None:
        profiles = [{"profile": name, **profile, **(changed if name == "torn" else {})} for name in PROFILES]
        results.write_text(json.dumps({"seed": 7, "profiles": profiles}))

    with pytest.raises(SystemExit, match="is missing"):
        publish(results, tmp_path)
    for changed, text in (({"schedules": 9_999}, "fewer than 10,000"), ({"violations": {"hang": 1}}, "in torn")):
        write(**changed)
        with pytest.raises(SystemExit, match=text):
            publish(results, tmp_path)
    write()
    publish(results, tmp_path)
    assert (tmp_path / "faults.csv").read_text().splitlines()[1:] == [f'{name},"10,000",5,5,0,1,7' for name in PROFILES]
