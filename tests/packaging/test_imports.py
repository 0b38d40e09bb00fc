from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

SWEEP = """
import importlib, json, sys, warnings

import airflow.providers.amazon.aws.hooks.base_aws
import airflow.providers.amazon.aws.operators.base_aws
import airflow.providers.amazon.aws.sensors.base_aws
import airflow.providers.amazon.aws.triggers.base

before = set(sys.modules)
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    for name in sys.argv[1:]:
        importlib.import_module(name)
print(json.dumps({
    "warnings": [str(w.message) for w in caught if "airflow_provider_omics_cache" in w.filename],
    "imported": sorted(set(sys.modules) - before),
}))
"""

PURE_SWEEP = """
import importlib, json, sys

names = ("states", "identity", "rounds", "submission", "completion", "failures", "progress")
for name in names:
    importlib.import_module("airflow_provider_omics_cache.healthomics." + name)
print(json.dumps([name for name in ("airflow", "boto3", "botocore") if name in sys.modules]))
"""


def run(script: str, *arguments: str) -> object:
    done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_everything_imports_without_warnings_and_without_optional_packages() -> None:
    package = ROOT / "airflow_provider_omics_cache"
    modules = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in sorted(package.rglob("*.py"))
        if "local" not in path.parts
    ]
    result = run(SWEEP, *modules)
    assert isinstance(result, dict)
    assert result["warnings"] == []
    imported = set(result["imported"])
    assert "airflow_provider_omics_cache.hooks.omics" in imported
    assert imported.isdisjoint({"moto", "aiobotocore", "werkzeug", "airflow_provider_omics_cache.local"})


def test_pure_modules_import_neither_airflow_nor_boto() -> None:
    assert run(PURE_SWEEP) == []
