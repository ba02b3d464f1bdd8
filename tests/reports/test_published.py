"""Published numbers: where each was measured, and that unlike things never share a column."""

import dataclasses

import pytest

from diffcorr.config import option_names
from diffcorr.metrics import POINT_PROTOCOLS
from diffcorr.metrics.protocols import metric_name
from diffcorr.reports.page import Points, Table
from diffcorr.reports.published import published, published_blocks


def test_every_number_can_be_placed():
    seen = set()
    for row in published():
        assert row.dataset in option_names("data")
        assert row.labels in ("none", "images, no keypoints", "keypoints")
        assert 0 < row.value < 100
        if row.protocol is not None:
            assert row.metric in map(metric_name, POINT_PROTOCOLS[row.protocol].alphas)
        key = (row.method, row.dataset, row.metric, row.protocol)
        assert key not in seen
        seen.add(key)


@pytest.mark.parametrize(
    ("dataset", "protocol", "tenth", "twentieth"),
    [
        ("spair", "legacy_hedlin_spair", 45.4, 28.9),
        ("pf_willow", "legacy_hedlin_willow", 84.3, 53.0),
        ("cub", "legacy_hedlin_cub", 77.5, 61.6),
    ],
)
def test_the_numbers_of_the_prompt_fitting_paper(dataset, protocol, tenth, twentieth):
    found = {
        row.metric: row.value
        for row in published()
        if (row.dataset, row.protocol, row.method) == (dataset, protocol, "prompt fitting")
    }
    assert found == {"pck@0.10": tenth, "pck@0.05": twentieth}


def test_a_column_is_one_metric_under_one_protocol():
    rows = [row for row in published() if row.dataset == "spair"]
    own = {"mine": {("pck@0.10", "dift"): "12.3", ("pck@0.10", "standard"): "45.6"}}
    table, _, rest = list(published_blocks(rows, own))
    assert isinstance(table, Table)
    assert isinstance(rest, Points)
    assert list(table.head) == [
        *("method", "trained on", "source"),
        *("pck@0.10 (legacy_hedlin_spair)", "pck@0.05 (legacy_hedlin_spair)", "pck@0.10 (dift)"),
    ]
    cells = {row[0]: list(row[3:]) for row in table.rows}
    # one's own score under `standard` has no published number beside it, so it is not there
    assert cells == {
        "mine": ["", "", "12.3"],
        "prompt fitting": ["45.4", "28.9", ""],
        "DIFT (SD 2.1)": ["", "", "59.4"],
    }
    assert len(rest.items) == sum(not row.comparable for row in rows)
    assert any("GeoAware-SC, zero-shot: pck@0.10 65.4; points pooled" in item for item in rest.items)


def test_what_is_not_known_in_full_is_in_no_column():
    row = next(row for row in published() if row.protocol)
    assert row.comparable
    assert not dataclasses.replace(row, protocol=None).comparable
    assert not dataclasses.replace(row, measured="per point").comparable
    (_, points) = published_blocks([dataclasses.replace(row, measured="per point")])
    assert f"as `{row.protocol}`, per point" in points.items[0]
