from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_omics_cache.local.protocol import load_json, load_json_array

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text("],[ é", max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3),
    max_leaves=6,
)


def outcome(read: Any, body: bytes) -> Any:
    try:
        return read(body)
    except ValueError:
        return "refused"


@given(value=values, indent=st.sampled_from([None, 0, 2]), place=st.integers(0, 30), put=st.sampled_from(" ,[]{}x\n"))
def test_an_array_read_entry_by_entry_is_the_array(value: Any, indent: int | None, place: int, put: str) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=False)
    for variant in (text, text[:place] + put + text[place:], text[:place] + text[place + 1 :], text[:place]):
        body = variant.encode()
        whole = outcome(load_json, body)
        expected = whole if isinstance(whole, list) else "refused"
        assert outcome(lambda body: list(load_json_array(body.decode("utf-8"))), body) == expected
