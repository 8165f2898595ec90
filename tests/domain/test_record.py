"""The rule of metadata, which every record that has some follows."""

import pytest

from tillway.domain.record import merged_metadata
from tillway.domain.refusal import Refused


def test_metadata_is_merged_within_its_bound() -> None:
    assert merged_metadata({"a": "1", "b": "2"}, {"a": None, "c": "3", "d": None}) == {"b": "2", "c": "3"}
    assert merged_metadata({"a": "1"}, {"a": "2"}) == {"a": "2"}
    assert merged_metadata({"a": "1"}, {}) == {"a": "1"}
    assert merged_metadata({"a": "1"}, None) == {}
    full = {f"k{i}": "x" for i in range(50)}
    assert merged_metadata(full, {"k0": None, "new": "x"})["new"] == "x"
    with pytest.raises(Refused) as refused:
        merged_metadata(full, {"new": "x"})
    assert refused.value.param == "metadata"
