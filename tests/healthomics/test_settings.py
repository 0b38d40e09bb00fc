from __future__ import annotations

import hashlib
import io
import json
import tracemalloc
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from airflow_provider_omics_cache.healthomics.identity import canonical_json
from airflow_provider_omics_cache.healthomics.settings import (
    MAX_PARAMETERS_BYTES,
    RunSettings,
    check_member,
    check_run_settings,
)

TAGS = {"type": "map", "key": {"type": "string", "min": 1, "max": 128}, "value": {"type": "string", "max": 256}}
SHAPE = {
    "type": "structure",
    "required": ["runSettingId"],
    "members": {
        "runSettingId": {"type": "string", "min": 1, "max": 128},
        "name": {"type": "string", "min": 1, "max": 128},
        "outputUri": {"type": "string", "min": 1, "max": 750},
        "priority": {"type": "integer", "min": 0, "max": 100000},
        "parameters": {"type": "document"},
        "runTags": TAGS,
        "engineSettings": {"type": "document"},
    },
}
DEFAULT_SHAPE = {
    "type": "structure",
    "required": ["workflowId", "roleArn"],
    "members": {
        "workflowId": {"type": "string", "min": 1, "max": 18},
        "roleArn": {"type": "string", "min": 1, "max": 128},
        "parameters": {"type": "document"},
        "runTags": TAGS,
        "sessionPolicy": {"type": "string", "min": 1, "max": 2048},
    },
}
DEFAULT = {"outputUri": "s3://bucket/out/"}
UNKNOWN = "has an unknown key"
DEFAULT_MEMBERS = {"workflowId": "1234567", "roleArn": "arn:aws:iam::123456789012:role/omics"}


def check(settings: Any, default: dict[str, Any] = DEFAULT, file: io.BytesIO | None = None) -> RunSettings:
    return check_run_settings(
        settings, shape=SHAPE, default_run_setting=default, file=file or io.BytesIO(), unknown_rule=UNKNOWN
    )


def setting(number: int, **members: Any) -> dict[str, Any]:
    return {"runSettingId": f"sample-{number}", "parameters": {"sample": number}, **members}


def refused(settings: Any, default: dict[str, Any] = DEFAULT) -> tuple[str, str, Any]:
    found = check(settings, default)
    assert found.broken, "nothing is said to be wrong"
    return found.broken.summary()


class TestGood:
    def test_the_file_is_the_json_array_in_the_given_order(self) -> None:
        settings = [
            setting(2, priority=0, runTags={"cohort": ""}),
            setting(1, name="é", engineSettings=[{"profile": None}]),
        ]
        file = io.BytesIO()
        found = check(settings, file=file)
        content = file.getvalue()
        assert not found.broken
        assert json.loads(content) == settings
        assert (found.count, found.size) == (2, len(content))
        assert found.sha256 == hashlib.sha256(content).hexdigest()
        assert content.decode("ascii") == canonical_json(settings)

    def test_golden(self) -> None:
        found = check([{"runSettingId": "é", "parameters": {"b": [1.5, True], "a": None}}])
        assert found.sha256 == "a8ec57ed384e541b1d7455e952265c3812551ca8cc8f4a3a9f87e0316fcb69b6"
        assert found.digest == "d16ec68f515b891bb40bc46ad8e33af882c96657a01ad2d506179602a0b3a29f"
        several = check([{"runSettingId": "b"}, {"runSettingId": "a"}, {"runSettingId": "c"}])
        assert several.digest == "d0b5a08f8711efd83a52491e67bc4bb83f02149c233120784e340491d0f61b4f"

    @pytest.mark.parametrize("count", [1, 100, 101, 250, 9_999])
    def test_any_count_is_one_array(self, count: int) -> None:
        settings = [setting(number, name="x" * 100) for number in range(count)]
        file = io.BytesIO()
        assert check(settings, file=file).count == count
        assert json.loads(file.getvalue()) == settings

    def test_a_lazy_sequence_is_read_once(self) -> None:
        class Lazy(Sequence[dict[str, Any]]):
            reads = 0

            def __len__(self) -> int:
                return 3

            def __getitem__(self, index: Any) -> Any:
                raise AssertionError("settings are read in one pass")

            def __iter__(self) -> Iterator[dict[str, Any]]:
                Lazy.reads += 1
                return iter([setting(number) for number in range(3)])

        assert check(Lazy()).count == 3
        assert Lazy.reads == 1

    def test_text_of_any_alphabet(self) -> None:
        file = io.BytesIO()
        settings = [setting(0, name="試料 🧬 C:\\users\\udo")]
        assert not check(settings, file=file).broken
        assert json.loads(file.getvalue()) == settings

    def test_an_output_uri_in_either_place_is_enough(self) -> None:
        assert not check([setting(1, outputUri="s3://bucket/1/")], default={}).broken
        assert not check([setting(1)], default=DEFAULT).broken

    @pytest.mark.large
    def test_memory_stays_flat_with_100_000_settings(self) -> None:
        class Discard(io.BytesIO):
            def write(self, data: Any) -> int:
                return len(data)

        settings = [setting(number, name=f"run {number}" * 5) for number in range(100_000)]
        tracemalloc.start()
        try:
            found = check(settings, file=Discard())
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert found.count == 100_000
        assert not found.broken
        assert peak < 16 * 1024**2


class TestBad:
    @pytest.mark.parametrize(
        "settings",
        [5, {"runSettingId": "a"}, "bucket/settings.json", b"s3://a/b", iter([])],
    )
    def test_neither_list_nor_uri(self, settings: Any) -> None:
        parameter, rule, _ = refused(settings)
        assert (parameter, rule) == ("run_settings", "must be a list of dicts or an s3:// URI")

    @pytest.mark.parametrize("settings", [None, "None"])
    def test_nothing(self, settings: Any) -> None:
        parameter, rule, value = refused(settings)
        assert (parameter, value) == ("run_settings", settings)
        assert "None usually means that the upstream task returned None or was skipped. To skip" in rule

    @pytest.mark.parametrize("text", ['[{"runSettingId": "secret"}]', " {'runSettingId': 'secret'}"])
    def test_rendered_text_is_not_shown(self, text: str) -> None:
        assert refused(text) == (
            "run_settings",
            "must be a list of dicts or an s3:// URI: pass the XCom itself (task.output) or set "
            "render_template_as_native_obj=True",
            f"str of {len(text)} characters",
        )

    def test_an_empty_list(self) -> None:
        assert refused([]) == ("run_settings", "must have at least one setting", [])

    def test_more_than_the_service_takes(self) -> None:
        assert refused([setting(1)] * 100_001) == (
            "run_settings",
            "must have at most 100,000 settings",
            "100,001 settings",
        )

    def test_duplicates_name_the_first_20_and_count_all(self) -> None:
        settings = [setting(number) for number in range(100)] + [setting(number) for number in range(50)]
        parameter, rule, value = refused(settings)
        assert (parameter, value) == ("run_settings[100].runSettingId", "sample-0 as in [0]")
        assert rule.startswith(
            "must be unique (50 settings have this error; the first 20: [100] 'sample-0 as in [0]', "
        )
        assert "[119] 'sample-19 as in [19]'" in rule
        assert "[120]" not in rule

    def test_different_rules_are_reported_together(self) -> None:
        settings = [setting(0), setting(1, priority=-1), setting(2, cacheId="123"), setting(0), {"name": "x"}]
        parameter, rule, value = refused(settings)
        assert (parameter, value) == ("run_settings[1].priority", -1)
        assert rule.split("; also ") == [
            "must be an integer (0 to 100,000)",
            "has an unknown key (got 'cacheId' at [2])",
            "runSettingId must be unique (got 'sample-0 as in [0]' at [3])",
            "runSettingId is required (got None at [4])",
        ]

    @pytest.mark.parametrize(
        ("members", "parameter", "rule", "value"),
        [
            ({"runSettingId": 7}, "runSettingId", "must be a string of 1 to 128 characters", 7),
            ({"runSettingId": ["a"]}, "runSettingId", "must be a string of 1 to 128 characters", "list"),
            ({"runSettingId": ""}, "runSettingId", "must be a string of 1 to 128 characters", ""),
            ({"name": None}, "name", "must be a string of 1 to 128 characters", None),
            ({"name": "x" * 129}, "name", "must be a string of 1 to 128 characters", "x" * 129),
            ({"priority": True}, "priority", "must be an integer (0 to 100,000)", True),
            ({"priority": 1.0}, "priority", "must be an integer (0 to 100,000)", 1.0),
            ({"priority": 100_001}, "priority", "must be an integer (0 to 100,000)", 100_001),
            ({"parameters": "sample"}, "parameters", "must be a dict", "str"),
            (
                {"runTags": {"": "x"}},
                "runTags",
                "has an invalid key: it must be a string of 1 to 128 characters",
                "",
            ),
            (
                {"runTags": {"x": 1}},
                "runTags",
                "has an invalid value: it must be a string of at most 256 characters",
                1,
            ),
            ({"runTags": ["x"]}, "runTags", "must be a dict", "list"),
            ({"parameters": {"a": float("nan")}}, "parameters", "must contain only JSON values", "Out of range float"),
            ({"parameters": {"a": float("inf")}}, "parameters", "must contain only JSON values", "Out of range float"),
            ({"parameters": {"at": datetime.now(UTC)}}, "parameters", "must contain only JSON values", "datetime"),
            ({"engineSettings": {1, 2}}, "engineSettings", "must contain only JSON values", "set"),
            ({"parameters": {"a": "\ud800"}}, "parameters", "must contain only JSON values", "unpaired surrogate"),
            ({"name": "\udc00"}, "name", "must contain only JSON values", "unpaired surrogate"),
        ],
    )
    def test_members(self, members: dict[str, Any], parameter: str, rule: str, value: Any) -> None:
        found_parameter, found_rule, found_value = refused([setting(0), setting(1, **members)])
        assert (found_parameter, found_rule) == (f"run_settings[1].{parameter}", rule)
        if rule == "must contain only JSON values":
            assert value in found_value
        else:
            assert found_value == value

    def test_a_setting_that_contains_itself(self) -> None:
        parameters: dict[str, Any] = {}
        parameters["again"] = parameters
        parameter, rule, _ = refused([setting(0, parameters=parameters)])
        assert (parameter, rule) == ("run_settings[0].parameters", "must contain only JSON values")

    def test_a_setting_that_is_no_dict(self) -> None:
        assert refused([setting(0), "sample-1"]) == ("run_settings[1]", "must be a dict", "str")

    @pytest.mark.parametrize("place", [0, 49, 50, 51, 149])
    def test_the_place_of_what_is_wrong(self, place: int) -> None:
        for member, value in (("parameters", {"a": {1}}), ("name", "\ud800"), ("parameters", {"a": "x" * 256_000})):
            settings = [setting(number) for number in range(150)]
            settings[place][member] = value
            assert refused(settings)[0] == f"run_settings[{place}].{member}"

    def test_no_output_uri(self) -> None:
        parameter, rule, _ = refused([setting(0)], default={})
        assert parameter == "run_settings[0].outputUri"
        assert rule == "must be given here or in default_run_setting"

    def test_parameters_are_measured_merged_and_the_runs_own_win(self) -> None:
        half = "x" * (MAX_PARAMETERS_BYTES // 2)
        default = {**DEFAULT, "parameters": {"one": half}}
        assert not check([setting(0, parameters={"one": half + half[:-20]})], default).broken
        parameter, rule, value = refused([setting(0), setting(1, parameters={"two": half})], default)
        assert parameter == "run_settings[1].parameters"
        assert rule == "must have at most 256,000 bytes when merged with the default parameters"
        assert value == "256,019 bytes"

    def test_parameters_are_measured_as_utf_8(self) -> None:
        assert not check([setting(0, parameters={"a": "é" * 127_990})]).broken
        assert check([setting(0, parameters={"a": "é" * 128_000})]).broken

    @pytest.mark.large
    def test_100_000_offenders_are_reported_briefly(self) -> None:
        _, rule, _ = refused([setting(number, sample="secret-payload") for number in range(100_000)])
        assert rule.startswith("has an unknown key (100,000 settings have this error; the first 20: [0] 'sample', ")
        assert "secret" not in rule
        assert len(rule) < 1_000

    @pytest.mark.large
    def test_100_000_misspelt_keys_are_reported_briefly(self) -> None:
        _, rule, _ = refused([setting(number, output_uri="secret-payload") for number in range(100_000)])
        assert rule.startswith("has the unknown key 'output_uri' (did you mean 'outputUri'?) (100,000 settings have ")
        assert "secret" not in rule
        assert len(rule) < 1_000

    def test_the_first_20_rules_are_shown_and_the_others_are_counted(self) -> None:
        _, rule, _ = refused([setting(number, **{f"outputUri{number}": "s3://b/"}) for number in range(25)])
        assert rule.startswith("has the unknown key 'outputUri0' (did you mean 'outputUri'?); also ")
        assert "'outputUri19'" in rule
        assert rule.endswith(" (got 'outputUri19' at [19]); also 5 more errors")


class TestMember:
    def test_good(self) -> None:
        value = {**DEFAULT_MEMBERS, "parameters": {"a": [1]}, "runTags": {"a": "b"}, "sessionPolicy": "{}"}
        assert not check_member("default_run_setting", value, shape=DEFAULT_SHAPE)

    def test_an_unknown_key_is_named_and_its_value_is_not(self) -> None:
        value = {**DEFAULT_MEMBERS, "colour": "secret"}
        broken = check_member("default_run_setting", value, shape=DEFAULT_SHAPE, unknown_rule=UNKNOWN)
        assert broken.summary() == ("default_run_setting", UNKNOWN, "colour")

    @pytest.mark.parametrize(
        ("key", "member"),
        [
            ("sesionPolicy", "sessionPolicy"),
            ("session_policy", "sessionPolicy"),
            ("Session-Policy", "sessionPolicy"),
            ("workflow_id", "workflowId"),
            ("roleARN", "roleArn"),
            ("params", "parameters"),
            ("tags", "runTags"),
        ],
    )
    def test_an_unknown_key_that_resembles_a_member_suggests_it(self, key: str, member: str) -> None:
        value = {**DEFAULT_MEMBERS, key: "secret"}
        broken = check_member("default_run_setting", value, shape=DEFAULT_SHAPE, unknown_rule=UNKNOWN)
        rule = f"has the unknown key {key!r} (did you mean {member!r}?)"
        assert broken.summary() == ("default_run_setting", rule, key)

    @pytest.mark.parametrize("key", ["workflowOwnerId", "sample", "id", "", 7, None])
    def test_a_key_that_resembles_no_absent_member_suggests_none(self, key: Any) -> None:
        value = {**DEFAULT_MEMBERS, key: "secret"}
        broken = check_member("default_run_setting", value, shape=DEFAULT_SHAPE, unknown_rule=UNKNOWN)
        assert broken.summary() == ("default_run_setting", UNKNOWN, key)

    def test_several_unknown_keys_are_listed_without_a_place(self) -> None:
        value = {**DEFAULT_MEMBERS, "colour": 1, "smell": 2}
        broken = check_member("default_run_setting", value, shape=DEFAULT_SHAPE, unknown_rule=UNKNOWN)
        rule = f"{UNKNOWN} (2 values have this error: 'colour', 'smell')"
        assert broken.summary() == ("default_run_setting", rule, "colour")

    @pytest.mark.parametrize("policy", ["secret" * 1_000, ["secret"], 5])
    def test_a_session_policy_is_never_shown(self, policy: Any) -> None:
        broken = check_member("default_run_setting", {**DEFAULT_MEMBERS, "sessionPolicy": policy}, shape=DEFAULT_SHAPE)
        parameter, rule, value = broken.summary()
        assert parameter == "default_run_setting.sessionPolicy"
        assert "secret" not in f"{rule} {value}"

    def test_required_members_and_json(self) -> None:
        broken = check_member("default_run_setting", {"parameters": {"a": 1}}, shape=DEFAULT_SHAPE)
        parameter, rule, _ = broken.summary()
        assert parameter == "default_run_setting.roleArn"
        assert rule == "is required; also workflowId is required (got None)"
        value = {**DEFAULT_MEMBERS, "parameters": {"a": float("nan")}}
        parameter, rule, _ = check_member("default_run_setting", value, shape=DEFAULT_SHAPE).summary()
        assert (parameter, rule) == ("default_run_setting.parameters", "must contain only JSON values")


ids = st.text(min_size=1, max_size=5)
parameters = st.dictionaries(st.text(max_size=5), st.none() | st.integers() | st.text(max_size=5), max_size=4)


@given(st.lists(ids, min_size=1, max_size=30))
def test_a_list_is_refused_if_and_only_if_an_id_repeats(run_setting_ids: list[str]) -> None:
    found = check([{"runSettingId": run_setting_id} for run_setting_id in run_setting_ids])
    assert bool(found.broken) == (len(set(run_setting_ids)) < len(run_setting_ids))


@given(st.lists(st.tuples(ids, parameters), min_size=1, max_size=5, unique_by=lambda pair: pair[0]))
def test_the_digest_ignores_order_and_nothing_else(pairs: list[tuple[str, dict[str, Any]]]) -> None:
    settings = [{"runSettingId": run_setting_id, "parameters": values} for run_setting_id, values in pairs]
    reordered = [
        {"parameters": dict(reversed(values.items())), "runSettingId": run_setting_id}
        for run_setting_id, values in pairs
    ]
    found = check(settings)
    assert check(reordered).sha256 == found.sha256
    assert check(reordered[::-1]).digest == found.digest
    assert len(found.digest) == 64
    assert check([*settings, {"runSettingId": "one more"}]).digest != found.digest
    assert check([{**settings[0], "name": "other"}, *settings[1:]]).digest != found.digest
    if len(settings) > 1:
        assert check(settings[::-1]).sha256 != found.sha256
        swapped = [{**settings[0], "parameters": {"n": 1}}, {**settings[1], "parameters": {"n": 2}}]
        again = [{**settings[0], "parameters": {"n": 2}}, {**settings[1], "parameters": {"n": 1}}]
        assert check(swapped).digest != check(again).digest


json_values = st.recursive(
    st.none() | st.text('\x1e,"a\\é🧬', max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("\x1e,", max_size=2), inner, max_size=2),
    max_leaves=5,
)


@example([["a", "\x1e", "b"], ["\x1e"] * 4])
@given(st.lists(json_values, min_size=1, max_size=5))
def test_digests_are_those_of_each_settings_canonical_json(values: list[Any]) -> None:
    settings = [setting(number, parameters={"value": value}) for number, value in enumerate(values)]
    file = io.BytesIO()
    found = check(settings, file=file)
    assert file.getvalue().decode("ascii") == canonical_json(settings)
    each = (int(hashlib.sha256(canonical_json(one).encode("ascii")).hexdigest(), 16) for one in settings)
    assert int(found.digest, 16) == sum(each) % 2**256


@given(st.lists(parameters, min_size=1, max_size=5))
def test_what_is_written_is_what_was_given(values: list[dict[str, Any]]) -> None:
    settings = [setting(number, parameters=value) for number, value in enumerate(values)]
    file = io.BytesIO()
    assert not check(settings, file=file).broken
    assert json.loads(file.getvalue()) == settings
