"""The benchmarks of segmentation run, and their records say what they have to; no clock is asserted."""

import json

import pytest
import torch

from benchmarks import merge, segment_sweep
from diffcorr.segmentation.merge import anchor_grid, present


def test_the_literal_loop_is_the_same_algorithm():
    graph = merge.aggregated({8: (2, 16), 4: (2, 16)}).double()
    anchors = anchor_grid((8, 8), 8)
    for tau in (1e-6, 0.02, 0.1, 1.0):
        found = merge.merge(graph, anchors, tau)[0]
        literal = merge.literal_merge(graph[0], anchors, tau)
        torch.testing.assert_close(found[present(found[None])[0]], literal)


def test_records_of_merging():
    records = merge.bench_merge({8: (2, 16), 4: (2, 16)}, anchors=4)
    assert [r["step"] for r in records] == ["aggregate", "merge, all separate", "merge, paper"]
    for record in records[1:]:
        assert (record["num_maps"], record["num_anchors"]) == (64, 16)
        assert record["ratio_to_literal"] == record["seconds_literal"] / record["seconds"]
        assert record["largest_relative_difference"] < 1e-3
    assert records[1]["num_proposals"] > records[2]["num_proposals"]


def test_records_of_a_sweep(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    segment_sweep.main(["method.anchors=4", "images=1"])
    written = json.loads((tmp_path / "outputs/bench/segment_sweep.json").read_text())
    first, *others = written["records"]
    assert first["ratio_to_full_run"] == 1
    assert {r["work"] for r in others} >= {"ten thresholds from the disk", "ten thresholds in memory"}
    assert written["about"]["arguments"] == ["method.anchors=4", "images=1"]


def test_wrong_arguments_are_one_line():
    with pytest.raises(SystemExit, match="expected method=diffseg"):
        segment_sweep.main(["method=kmeans_c"])
    with pytest.raises(SystemExit, match="expected images as a number such as 8, found '0'"):
        segment_sweep.main(["images=0"])
    with pytest.raises(SystemExit, match="expected no arguments"):
        merge.main(["fast"])
