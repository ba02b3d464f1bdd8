import json
from dataclasses import replace

import pytest

from diffcorr.errors import StoreError
from diffcorr.stores import MetricRecord, read_records, write_records

RECORD = MetricRecord(
    "correspondence",
    "dift",
    "tiny",
    "partworld",
    "test",
    "standard",
    "pck@0.10",
    41.25,
    240,
    0,
    {"style": "flat"},
)


def test_a_file_is_a_list_of_flat_records(tmp_path):
    write_records(tmp_path / "new" / "metrics.json", [RECORD, replace(RECORD, seed=1, extra={})])
    content = json.loads((tmp_path / "new" / "metrics.json").read_text())
    assert content[0] == {
        "task": "correspondence",
        "method": "dift",
        "backbone": "tiny",
        "dataset": "partworld",
        "split": "test",
        "protocol": "standard",
        "metric": "pck@0.10",
        "value": 41.25,
        "num_items": 240,
        "seed": 0,
        "style": "flat",
    }
    assert read_records(tmp_path / "new" / "metrics.json") == [RECORD, replace(RECORD, seed=1, extra={})]


def test_no_records_are_an_empty_list(tmp_path):
    write_records(tmp_path / "metrics.json", [])
    assert json.loads((tmp_path / "metrics.json").read_text()) == []


@pytest.mark.parametrize(
    "change",
    [
        {"protocol": ""},
        {"protocol": None},
        {"method": ""},
        {"value": float("nan")},
        {"value": float("inf")},
        {"value": 100.1},
        {"value": -0.1},
        {"value": "41"},
        {"num_items": 0},
        {"seed": 1.5},
        {"extra": {"value": 3}},
    ],
)
def test_a_number_that_means_nothing_is_refused(change):
    with pytest.raises(StoreError) as error:
        replace(RECORD, **change)
    assert "\n" not in str(error.value)


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "metrics.json"
    write_records(path, [RECORD])
    with pytest.raises(StoreError):
        write_records(path, [RECORD, replace(RECORD, extra={"interval": [float("nan"), 1.0]})])
    assert read_records(path) == [RECORD]
    assert [file.name for file in tmp_path.iterdir()] == ["metrics.json"]


@pytest.mark.parametrize("content", ["", "[{", "{}", "[1]", '[{"task": "correspondence"}]'])
def test_a_file_of_something_else_is_refused(tmp_path, content):
    (tmp_path / "metrics.json").write_text(content)
    with pytest.raises(StoreError) as error:
        read_records(tmp_path / "metrics.json")
    assert "\n" not in str(error.value)


def test_a_missing_file_says_what_to_do(tmp_path):
    with pytest.raises(StoreError, match=r"run eval\.py"):
        read_records(tmp_path / "metrics.json")
