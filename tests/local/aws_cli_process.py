"""Run commands of the AWS CLI, each in a fork of one process that has imported it: a start costs most of a second.

Reads ``{"arguments": [...], "environment": {...}}`` line by line and answers ``{"code": ..., "out": ..., "err": ...}``.
Runs in the CLI's own environment, not in that of the tests.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from tempfile import TemporaryFile
from typing import IO, Any

import awscli.clidriver


def main() -> None:
    driver = awscli.clidriver.create_clidriver()
    driver.session.get_service_model("omics")
    for line in sys.stdin:
        request = json.loads(line)
        with TemporaryFile("w+") as out, TemporaryFile("w+") as err:
            child = os.fork()
            if child == 0:
                _run(driver, request, out, err)
            _, status = os.waitpid(child, 0)
            answer = {"code": os.waitstatus_to_exitcode(status), "out": _read(out), "err": _read(err)}
        print(json.dumps(answer), flush=True)


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
