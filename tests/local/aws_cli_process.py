"""Run commands of the AWS CLI, each in a fork of one process that has imported it: a start costs most of a second.

Reads ``{"arguments": [...], "environment": {...}}`` line by line and answers ``{"code": ..., "out": ..., "err": ...}``.
Runs in the CLI's own environment, not in that of the tests.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import traceback
from tempfile import TemporaryFile
from typing import IO, Any

import awscli.clidriver


def main() -> None:
    driver = awscli.clidriver.create_clidriver()
    _load_what_commands_need(driver)
    for line in sys.stdin:
        request = json.loads(line)
        with TemporaryFile("w+") as out, TemporaryFile("w+") as err:
            child = os.fork()
            if child == 0:
                _run(driver, request, out, err)
            _, status = os.waitpid(child, 0)
            answer = {"code": os.waitstatus_to_exitcode(status), "out": _read(out), "err": _read(err)}
        print(json.dumps(answer), flush=True)


def _load_what_commands_need(driver: Any) -> None:
    """Fill the caches of the session before the forks. Without this, each command spends most of its time on it."""
    keys = dict.fromkeys(("aws_access_key_id", "aws_secret_access_key"), "testing")
    driver.session.create_client("omics", region_name="us-east-1", **keys)
    for kind in ("paginators-1", "waiters-2"):
        driver.session.get_component("data_loader").load_service_model("omics", kind)
    driver.session.get_available_services()
    gc.freeze()


def _run(driver: Any, request: dict[str, Any], out: IO[str], err: IO[str]) -> None:
    os.dup2(out.fileno(), 1)
    os.dup2(err.fileno(), 2)
    os.environ.update(request["environment"])
    code: Any = 1
    try:
        code = driver.main(request["arguments"])
    except SystemExit as stopped:
        code = stopped.code
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code or 0)


def _read(file: IO[str]) -> str:
    file.seek(0)
    return file.read()


if __name__ == "__main__":
    main()
