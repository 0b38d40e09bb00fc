"""Request tokens, names and digests that are the same for every try of the same work: pure functions.

The results for the same arguments must not change between releases, so that a newer release finds the batches and run
caches of an older one.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from typing import Any

BATCH_NAME_LENGTH = 64
RUN_NAME_LENGTH = 128
#: Tags with the task that a batch or run belongs to, for people. A retry finds its batch or run without them.
TASK_TAGS = ("airflow-dag-id", "airflow-run-id", "airflow-task-id", "airflow-map-index")

_SUFFIX_LENGTH = 16
_PREFIX_LENGTH = BATCH_NAME_LENGTH - _SUFFIX_LENGTH - 1
#: Minimum number of characters of a long DAG id in a batch's name.
_DAG_ID_LENGTH = 23
_TAG_VALUE_LENGTH = 256
#: Characters that AWS does not allow in the value of a tag.
_NOT_IN_TAGS = re.compile(r"[^\w .:/=+@-]")


def canonical_json(value: Any) -> str:
    """Write a value as JSON with sorted keys, no spaces and only ASCII characters.

    :param value: what to write.
    :raises TypeError: the value is not JSON-serialisable.
    :raises ValueError: the value contains NaN, Infinity or a reference to itself.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def digest(value: Any) -> str:
    """Return the SHA-256 of the value's canonical JSON, as 64 hexadecimal digits.

    :param value: what to hash.
    """
    return hashlib.sha256(canonical_json(value).encode("ascii")).hexdigest()


def run_cache_token(*, name: str, location: str, owner: str | None, region: str | None, generation: int) -> str:
    """Return the request token of a run cache, derived from the properties that identify the cache.

    :param name: name of the run cache.
    :param location: its S3 location; a trailing slash makes no difference.
    :param owner: account id of the bucket's owner, None for the caller's account.
    :param region: AWS Region.
    :param generation: 0 for the first token; it increases if a cache that was deleted or differs has used the token.
    """
    parts = ["run-cache", name, location.rstrip("/"), owner, region, generation]
    return f"run-cache-{digest(parts)}"


def run_group_token(*, name: str, region: str | None, generation: int) -> str:
    """Return the request token of a run group, derived from the properties that identify the group.

    :param name: name of the run group.
    :param region: AWS Region.
    :param generation: 0 for the first token; it increases if a group that was deleted or renamed has used the token.
    """
    return f"run-group-{digest(['run-group', name, region, generation])}"


@dataclass(frozen=True, kw_only=True)
class TaskIdentity:
    """What a batch or single run belongs to: one task (and map index) of one DAG run. It is the same for all tries.

    :param token_namespace: distinguishes Airflow environments that share an AWS account.
    :param dag_id: id of the DAG.
    :param run_id: id of the DAG run.
    :param task_id: id of the task.
    :param map_index: index of the mapped task, -1 for a task that is not mapped.
    :param rerun_key: the user's key; another key starts another batch or run.
    """

    token_namespace: str
    dag_id: str
    run_id: str
    task_id: str
    map_index: int
    rerun_key: str | None

    def _parts(self) -> list[str | int | None]:
        return [self.token_namespace, self.dag_id, self.run_id, self.task_id, self.map_index, self.rerun_key]

    def batch_name(self, prefix: str) -> str:
        """Return the name of the batch: the prefix, shortened as needed, and a hash of the identity.

        :param prefix: the user's part of the name.
        """
        suffix = digest(["batch-name", *self._parts()])[:_SUFFIX_LENGTH]
        return f"{prefix[:_PREFIX_LENGTH]}-{suffix}"

    def run_name(self, prefix: str) -> str:
        """Return the name of a single run: the prefix, shortened as needed, and a hash of the identity.

        :param prefix: the user's part of the name.
        """
        suffix = digest(["run-name", *self._parts()])[:_SUFFIX_LENGTH]
        return f"{prefix[: RUN_NAME_LENGTH - _SUFFIX_LENGTH - 1]}-{suffix}"

    @property
    def default_name(self) -> str:
        """Beginning of a name that names the DAG and the task. Both are shortened as needed."""
        dag_id = self.dag_id[: max(_DAG_ID_LENGTH, _PREFIX_LENGTH - len(self.task_id) - 1)]
        return f"{dag_id}.{self.task_id}"[:_PREFIX_LENGTH]

    def task_tags(self) -> dict[str, str]:
        """Return :data:`TASK_TAGS` of the batch or run. A task that is not mapped has no map index."""
        values = (self.dag_id, self.run_id, self.task_id, "" if self.map_index < 0 else str(self.map_index))
        tags = zip(TASK_TAGS, values, strict=True)
        return {key: _NOT_IN_TAGS.sub("_", value)[:_TAG_VALUE_LENGTH] for key, value in tags if value}

    def batch_token(self, *, generation: int) -> str:
        """Return the request token of the batch. With other settings the service refuses it, or returns the same batch.

        :param generation: 0 for the task's first batch; it increases when a new batch replaces an old one.
        """
        return f"run-batch-{digest(['run-batch', *self._parts(), generation])}"

    def run_token(self, *, generation: int) -> str:
        """Return the request token of a run. With other settings the service refuses it, or returns the same run.

        :param generation: 0 for the task's first run; it increases when a new run replaces an old one.
        """
        return f"run-{digest(['run', *self._parts(), generation])}"


def run_request_digest(members: dict[str, Any]) -> str:
    """Return the digest of everything that determines a single run. Its name and tags are not part of it.

    :param members: members of StartRun's request, without the name, the tags and the token.
    """
    return digest({"run": members})


def request_digest(*, default_run_setting: dict[str, Any], settings_digest: str) -> str:
    """Return the digest of everything that determines the runs of a batch.

    The batch's own name and tags are not part of it. Changing them does not start the runs again.

    :param default_run_setting: the default run setting as it is sent.
    :param settings_digest: digest of the per-run settings. It does not depend on their order.
    """
    return digest({"defaultRunSetting": default_run_setting, "batchRunSettings": settings_digest})
