from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.conftest import needs_batches


def run(code: str, tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    (tmp_path / "test_it.py").write_text(textwrap.dedent(code))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments, "test_it.py"]
    return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)


def test_the_plugin_is_light() -> None:
    code = """
        import sys
        import airflow_provider_omics_cache.local.pytest_plugin
        heavy = {"moto", "boto3", "botocore", "airflow", "werkzeug", "flask"} & sys.modules.keys()
        sys.exit(f"imported {heavy}" if heavy else 0)
    """
    finished = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=60, check=False
    )

    assert finished.returncode == 0, finished.stderr


def test_the_local_service_does_not_import_airflow() -> None:
    code = """
        import sys
        from airflow_provider_omics_cache.local import mock_healthomics, serve, LocalHealthOmicsControl
        with mock_healthomics(), serve():
            pass
        sys.exit("imported airflow" if "airflow" in sys.modules else 0)
    """
    finished = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=60, check=False
    )

    assert finished.returncode == 0, finished.stderr


def test_the_fixtures_are_there_for_every_test(tmp_path: Path) -> None:
    code = """
        import boto3

        def test_in_process(local_healthomics):
            assert boto3.client("omics").list_run_caches()["items"] == []

        def test_server(local_healthomics_server):
            client = boto3.client("omics", **local_healthomics_server.client_kwargs)
            assert client.list_run_caches()["items"] == []
    """

    assert "2 passed" in run(code, tmp_path).stdout


def test_without_moto_the_fixtures_say_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text("import sys\nsys.modules['moto'] = None\n")
    code = """
        def test_in_process(local_healthomics): ...
        def test_server(local_healthomics_server): ...
        def test_without(): ...
    """

    finished = run(code, tmp_path)

    assert "1 passed, 2 errors" in finished.stdout
    assert finished.stdout.count("pip install 'airflow-provider-omics-cache[local]'") >= 2


@needs_batches
def test_only_what_was_made_exists_unless_the_service_is_lenient(tmp_path: Path) -> None:
    code = """
        import boto3
        import pytest

        from airflow_provider_omics_cache.local import mock_healthomics

        def counts(local, client):
            setting = {"workflowId": "1", "roleArn": "arn:aws:iam::123456789012:role/r", "outputUri": "s3://lab/"}
            settings = {"inlineSettings": [{"runSettingId": "A"}]}
            batch = client.start_run_batch(defaultRunSetting=setting, batchRunSettings=settings)
            local.clock.advance(100)
            found = client.get_batch(batchId=batch["id"])
            runs, submissions = found["runSummary"], found["submissionSummary"]
            return submissions["failedStartSubmissionCount"], runs["failedRunCount"], runs["completedRunCount"]

        def by_and_by(local, client, s3):
            with pytest.raises(client.exceptions.ResourceNotFoundException, match="Workflow 1 "):
                counts(local, client)
            local.register_workflow("1")
            assert counts(local, client) == (0, 1, 0)
            s3.create_bucket(Bucket="lab")
            assert counts(local, client) == (0, 0, 1)

        def test_in_process(local_healthomics):
            by_and_by(local_healthomics, boto3.client("omics"), boto3.client("s3"))

        def test_server(local_healthomics_server):
            kwargs = local_healthomics_server.client_kwargs
            by_and_by(local_healthomics_server, boto3.client("omics", **kwargs), boto3.client("s3", **kwargs))

        def test_lenient():
            with mock_healthomics(strict=False) as local:
                kwargs = {"aws_access_key_id": "any", "aws_secret_access_key": "any", "region_name": "us-east-1"}
                assert counts(local, boto3.Session().client("omics", **kwargs)) == (0, 0, 1)
    """

    assert "3 passed" in run(code, tmp_path).stdout


def test_no_setting_of_the_user_leads_to_aws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "production")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://elsewhere.invalid")
    code = """
        import boto3

        def test_in_process(local_healthomics):
            boto3.client("s3").create_bucket(Bucket="caches")
            assert boto3.client("omics").create_run_cache(cacheS3Location="s3://caches")["id"]

        def test_server(local_healthomics_server):
            local_healthomics_server.create_bucket("caches")
            client = boto3.client("omics", **local_healthomics_server.client_kwargs)
            assert client.create_run_cache(cacheS3Location="s3://caches")["id"]
    """

    assert "2 passed" in run(code, tmp_path).stdout
