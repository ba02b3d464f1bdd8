"""The benchmarks run, and their records say what they have to; no clock is asserted."""

import json

import pytest
import torch
from omegaconf import OmegaConf

from benchmarks import ablations, overhead, run
from benchmarks.count_flops import per_query, per_query_packed
from benchmarks.count_memory import LiveBytes, step_bytes
from benchmarks.measure import take_turns
from benchmarks.modes import MODES, changed
from diffcorr.attention import MeanAttention
from diffcorr.config import compose, instantiate
from diffcorr.correspondence import FitConfig, TransferConfig
from diffcorr.correspondence.flops import Pieces
from diffcorr.stores.embeddings import EmbeddingStore
from tests.helpers.tiny_models import tiny_backbone


def test_records_of_the_speed_benchmark(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    short = ["method.fit.steps=2", "method.fit.rounds=1", "method.transfer.num_crops=4"]
    run.main([*short, "modes=plain,exact,packed"])
    written = json.loads((tmp_path / "outputs/bench/fit.json").read_text())
    assert [r["mode"] for r in written["records"]] == ["plain", "exact", "packed"]
    for record in written["records"]:
        assert record.keys() >= {
            "backbone",
            "device",
            "dtype",
            "seconds_per_query",
            "ratio_to_plain",
            "flops_per_query",
            "flops_ratio",
            "peak_memory_bytes",
            "num_queries",
        }
    plain, exact, _ = written["records"]
    assert plain["ratio_to_plain"] == 1
    assert exact["flops_ratio"] < plain["flops_ratio"] == 1
    (tmp_path / "outputs/bench/segment.json").read_text()
    assert "outputs/bench/fit.json" in capsys.readouterr().out


def test_record_of_the_overhead(tmp_path, monkeypatch):
    """As many embeddings by the framework as by the bare loop, into a folder of its own."""
    monkeypatch.chdir(tmp_path)
    overhead.main(["data.num_pairs=1", "method.fit.rounds=1", "method.fit.steps=1"])
    (record,) = json.loads((tmp_path / "outputs/bench/overhead.json").read_text())["records"]
    expected = record["seconds_framework"] / record["seconds_bare"] - 1
    assert record["overhead"] == pytest.approx(expected, rel=0.5, abs=0.5)
    (stored,) = (tmp_path / "outputs/bench/overhead/embeddings").iterdir()
    with EmbeddingStore(stored, *json.loads((stored / "store.json").read_text()).values()) as store:
        assert len(store) == record["num_prompts"]


@pytest.mark.parametrize("name", MODES)
def test_every_mode_is_a_valid_config(name):
    config = compose("eval", [])
    keywords = instantiate(changed(config.method, MODES[name])).keywords
    assert isinstance(keywords["fit"], FitConfig)
    assert keywords["fit"].sigma == config.method.fit.sigma  # of the preset
    assert keywords["transfer"].timestep == keywords["fit"].timestep


@pytest.mark.parametrize("name", ablations.NAMES)
def test_sweeps_are_compared_to_what_their_experiment_has(name):
    config = compose("eval", [f"experiment=ablate_{name}"])
    for key, value in ablations.REFERENCES.get(name, {}).items():
        assert str(OmegaConf.select(config, key)) == value


def test_flops_are_those_of_a_matrix_product():
    a = torch.randn(8, 16)
    measured = take_turns({"product": lambda: a @ a.T}, turns=1)["product"]
    assert measured.flops == 2 * 8 * 16 * 8
    assert len(measured.seconds) == 1


def test_flops_of_a_query_by_hand():
    each = Pieces(whole=10.0, early=6.0, backward=5.0, encode=3.0)
    fit = FitConfig(steps=10, rounds=2, bank_size=4, crop=0.5)
    read = TransferConfig(num_crops=5, bank_size=4, crop=0.5)
    found = per_query(each, fit, read, side=32)
    assert found["plain"] == 20 * (10 + 5 + 3) + 10 * (10 + 3)
    # four crops each of source and target, shared by ten queries
    assert found["exact"] == 20 * (6 + 5) + 10 * 6 + 0.8 * 3


def test_flops_of_shared_views_by_hand():
    """Three rounds of 16 crops and 2 steps serve 10 queries, as do 4 crops with 3 noises of the target."""
    each = Pieces(encode=3.0, whole=10.0, early=6.0, backward=5.0)
    fit = FitConfig(init_crops=16, steps=2, rounds=3)
    read = TransferConfig(crops="grid", num_crops=4, num_noises=3)
    assert per_query_packed(each, fit, read) == pytest.approx(((54 + 12) * 6 + (54 + 4) * 3) / 10)


def test_live_bytes_by_hand():
    with LiveBytes() as live:
        a = torch.zeros(1000)
        view = a.view(10, 100)
        assert (live.now, live.peak) == (4000, 4000)
        b = (a + 1) * 2  # the sum dies
        assert (live.now, live.peak) == (8000, 12000)
        b.add_(1)
        del a
        assert live.now == 8000  # the view holds it
        del view
        assert (live.now, live.peak) == (4000, 12000)
        x = b.requires_grad_()
        y = x.exp().sin()  # backward needs both
        assert live.now == 12000
        del y
        assert live.now == 4000


def test_memory_of_a_step_grows_with_the_prompts_and_the_layers_that_run():
    backbone = tiny_backbone()

    def small(early):
        return FitConfig(layers=[3], stop_early=early, loss_resolution=None)  # else the loss outweighs all

    sizes = {
        (n, early): step_bytes(backbone, small(early), MeanAttention(), n)
        for n in (2, 4, 6)
        for early in (True, False)
    }
    assert sizes[6, True] - sizes[4, True] == sizes[4, True] - sizes[2, True] > 0
    assert sizes[4, True] < sizes[4, False]
