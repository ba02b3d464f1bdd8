from diffcorr.reports import results_table
from diffcorr.reports.summary import summarise
from diffcorr.stores import MetricRecord


def record(method="dift", value=20.0, seed=0, metric="pck@0.10", protocol="standard", items=240, **extra):
    return MetricRecord(
        "correspondence", method, "tiny", "partworld", "test", protocol, metric, value, items, seed, extra
    )


def test_seeds_become_mean_and_sample_deviation():
    (score,) = summarise([record(value=value, seed=seed) for seed, value in enumerate((1.0, 2.0, 3.0))])
    assert (score.mean, score.std, score.values) == (2.0, 1.0, (1.0, 2.0, 3.0))
    assert summarise([record(value=7.0)])[0].std is None


def test_different_protocols_groups_and_metrics_are_never_averaged():
    different = [record(), record(protocol="per_point"), record(metric="pck@0.05"), record(style="flat")]
    assert [score.values for score in summarise(different)] == [(20.0,)] * 4


def test_an_interval_belongs_to_a_single_seed():
    one = record(interval=[18.0, 22.0])
    assert summarise([one])[0].interval == (18.0, 22.0)
    assert summarise([one, record(seed=1, interval=[17.0, 21.0])])[0].interval is None


def test_a_table_names_its_protocols():
    records = [record(value=value, seed=seed) for seed, value in enumerate((10.0, 12.0))]
    records += [record(value=5.0, metric="pck@0.05"), record("a|b", 1.25)]
    assert results_table(records) == (
        "| backbone | data | method | pck@0.10 (standard) | pck@0.05 (standard) | over |\n"
        "| --- | --- | --- | ---: | ---: | --- |\n"
        "| tiny | partworld test | dift | 11.0 ± 1.4 |  | 240 items, 2 seeds |\n"
        "| tiny | partworld test | dift |  | 5.0 | 240 items, 1 seed |\n"
        "| tiny | partworld test | a\\|b | 1.2 |  | 240 items, 1 seed |\n"
    )


def test_tasks_have_tables_of_their_own():
    masks = MetricRecord(
        "segmentation", "diffseg", "tiny", "partworld", "test", "per_image", "miou", 62.0, 90, 0, {}
    )
    first, second = results_table([record(), masks, record(metric="pck@0.05")]).split("\n\n")
    assert first.splitlines()[2] == "| tiny | partworld test | dift | 20.0 | 20.0 | 240 items, 1 seed |"
    assert second.splitlines() == [
        "| backbone | data | method | miou (per_image) | over |",
        "| --- | --- | --- | ---: | --- |",
        "| tiny | partworld test | diffseg | 62.0 | 90 items, 1 seed |",
    ]


def test_groups_are_rows_of_their_own():
    parts = [record(value=30.0, items=60, style="flat"), record(value=40.0, items=30, group="scale=2")]
    lines = results_table([record(), *parts]).splitlines()
    assert lines[0] == "| backbone | data | group | method | pck@0.10 (standard) | over |"
    assert lines[3] == "| tiny | partworld test | style=flat | dift | 30.0 | 60 items, 1 seed |"
    assert lines[4] == "| tiny | partworld test | scale=2 | dift | 40.0 | 30 items, 1 seed |"


def test_an_empty_table_says_so():
    assert results_table([]) == "| no results |\n| --- |\n"
