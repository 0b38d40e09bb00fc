"""Keep session policies out of what Airflow shows and stores of a task's parameters."""

from __future__ import annotations

import json
import operator
import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from itertools import islice
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_provider_omics_cache.redaction import HIDDEN, mask

if TYPE_CHECKING:
    from airflow.providers.amazon.aws.operators.base_aws import AwsBaseOperator
    from airflow.sdk import Context

    Task = AwsBaseOperator[Any]
else:
    Task = object

#: Maximum number of session policies that are masked in the log of one task. Each one makes every log line slower.
MOST_MASKED = 20


class HiddenPolicy:
    """A session policy that every version of Airflow shows as ``***``.

    Airflow's own masker is not enough: Airflow 3.0 masks the rendered fields in another process than the task's.

    :param value: the session policy.
    """

    def __init__(self, value: Any) -> None:
        self.value = value

    def __repr__(self) -> str:
        return repr(HIDDEN)

    def __str__(self) -> str:
        return HIDDEN

    def serialize(self) -> str:
        """Return what Airflow 3.2 and newer show."""
        return HIDDEN

    def to_dict(self) -> str:
        """Return what Airflow 3.1 shows."""
        return HIDDEN


class PolicyHidingTask(Task):
    """Base of a task whose parameters may hold session policies.

    The rendered parameters hold each policy as a :class:`HiddenPolicy`. :func:`with_policies` returns the original
    values.
    """

    #: Parameters that are settings, or lists of settings.
    settings_with_policies: ClassVar[tuple[str, ...]] = ()
    #: Parameters that are session policies.
    policies: ClassVar[tuple[str, ...]] = ()

    def _do_render_template_fields(
        self, parent: Any, template_fields: Any, context: Context, jinja_env: Any, seen_oids: set[int]
    ) -> None:
        # Mask before the rendering too: Airflow logs a field that it cannot render.
        self._mask_policies()
        super()._do_render_template_fields(parent, template_fields, context, jinja_env, seen_oids)
        if parent is self:
            self._mask_policies()
            for name in self.settings_with_policies:
                setattr(self, name, without_policies(getattr(self, name)))
            for name in self.policies:
                setattr(self, name, hidden(getattr(self, name)))

    def _mask_policies(self) -> None:
        settings = [getattr(self, name) for name in self.settings_with_policies]
        found = _policies_in([*settings, *({"sessionPolicy": getattr(self, name)} for name in self.policies)])
        mask(form for policy in islice(found, MOST_MASKED) for form in _forms_of(policy))


def without_policies(settings: Any) -> Any:
    """Hide the session policies in a setting, or in a list of settings. Settings without a policy are not copied.

    :param settings: the setting or settings. A text that mentions a session policy is hidden whole.
    """
    if isinstance(settings, list):
        return _changed_entries(settings, without_policies)
    if isinstance(settings, dict) and any(map(_is_policy, settings)):
        return {name: hidden(value) if _is_policy(name) else value for name, value in settings.items()}
    return HiddenPolicy(settings) if _is_text_with_policy(settings) else settings


def with_policies(settings: Any) -> Any:
    """Undo :func:`without_policies`.

    :param settings: the setting or settings.
    """
    if isinstance(settings, list):
        return _changed_entries(settings, with_policies)
    if isinstance(settings, dict) and any(isinstance(value, HiddenPolicy) for value in settings.values()):
        return {name: with_policies(value) for name, value in settings.items()}
    return without_hiding(settings)


def hidden(policy: Any) -> HiddenPolicy | None:
    """Hide a session policy; None stays None.

    :param policy: the policy.
    """
    return policy if policy is None or isinstance(policy, HiddenPolicy) else HiddenPolicy(policy)


def without_hiding(value: Any) -> Any:
    """Return the original of a hidden session policy; any other value as it is.

    :param value: value of a parameter.
    """
    return value.value if isinstance(value, HiddenPolicy) else value


def _changed_entries(settings: list[Any], change: Callable[[Any], Any]) -> list[Any]:
    changed = [change(entry) for entry in settings]
    return settings if all(map(operator.is_, changed, settings)) else changed


def _policies_in(settings: Any) -> Iterator[Any]:
    """Find each session policy once."""
    seen = set()
    for setting in settings:
        for entry in setting if isinstance(setting, list) else [setting]:
            policies = [entry] if _is_text_with_policy(entry) else []
            if isinstance(entry, dict):
                policies = [value for name, value in entry.items() if _is_policy(name)]
            for policy in policies:
                if policy is not None and not isinstance(policy, HiddenPolicy) and repr(policy) not in seen:
                    seen.add(repr(policy))
                    yield policy


def _forms_of(policy: Any) -> set[str]:
    """Return a policy as texts show it: as it is, inside a dict, inside a request, and inside a request as bytes."""
    in_request = json.dumps(policy, default=str)
    if not isinstance(policy, str):
        return {repr(policy), in_request}
    return {policy, repr(policy)[1:-1], in_request[1:-1], repr(in_request)[2:-2]}


@lru_cache(maxsize=1024)
def _is_policy(name: Any) -> bool:
    return isinstance(name, str) and _letters(name) == "sessionpolicy"


def _is_text_with_policy(value: Any) -> bool:
    return isinstance(value, str) and not value.startswith("s3://") and "sessionpolicy" in _letters(value)


def _letters(text: str) -> str:
    return re.sub("[^a-z]", "", text.lower())
