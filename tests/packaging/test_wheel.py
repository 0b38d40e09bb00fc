from __future__ import annotations

import configparser
import email
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = "airflow_provider_omics_cache"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    directory = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index"]
    done = subprocess.run([*command, "-w", str(directory), str(ROOT)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    (path,) = directory.glob("*.whl")
    return zipfile.ZipFile(path)


def read_dist_info(wheel: zipfile.ZipFile, name: str) -> str:
    (path,) = [path for path in wheel.namelist() if path.endswith(f".dist-info/{name}")]
    return wheel.read(path).decode()


def test_wheel_holds_every_module_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    modules = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / PACKAGE).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    examples = {f"{PACKAGE}/example_dags/{path.name}" for path in (ROOT / "example_dags").glob("*.py")}
    in_wheel = {path for path in wheel.namelist() if ".dist-info/" not in path}
    assert in_wheel == modules | examples
    assert f"{PACKAGE}/py.typed" in in_wheel
    assert f"{PACKAGE}/example_dags/quickstart.py" in in_wheel


def test_entry_points(wheel: zipfile.ZipFile) -> None:
    entry_points = configparser.ConfigParser()
    entry_points.read_string(read_dist_info(wheel, "entry_points.txt"))
    assert dict(entry_points["apache_airflow_provider"]) == {
        "provider_info": f"{PACKAGE}.get_provider_info:get_provider_info"
    }
    assert dict(entry_points["pytest11"]) == {"local_healthomics": f"{PACKAGE}.local.pytest_plugin"}


def test_metadata(wheel: zipfile.ZipFile) -> None:
    metadata = email.message_from_string(read_dist_info(wheel, "METADATA"))
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Requires-Python"] == ">=3.11"
    required = {r for r in metadata.get_all("Requires-Dist", []) if "extra ==" not in r}
    assert required == {
        "apache-airflow-providers-amazon>=9.8.0",
        "apache-airflow>=2.11.0",
        "asgiref>=2.3.0",
        "boto3>=1.37.2",
        "jsonschema>=4.18.0",
        "referencing>=0.28.4",
    }
    assert set(metadata.get_all("Provides-Extra", [])) == {"batch", "local"}
    assert "Framework :: Apache Airflow :: Provider" in metadata.get_all("Classifier", [])
    assert "Apache License" in read_dist_info(wheel, "licenses/LICENSE")
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert metadata.get_payload().startswith(
        "# airflow-provider-omics-cache\n\nRun a workflow over thousands of samples"
    )
    assert "](docs/" not in metadata.get_payload()
