"""Predictions of other systems: what a file may say, and that nothing else gets into a store."""

import json
import math
from pathlib import Path

import pytest

from diffcorr.errors import StoreError
from diffcorr.stores import PredictionStore
from diffcorr.stores.importers import import_predictions
from diffcorr.types import PointPrediction

HEAD = "pair_id,keypoint,x,y"


def write(folder: Path, name: str, text: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def test_a_csv_of_a_spreadsheet(tmp_path):
    text = '\ufeffkeypoint, pair_id ,x,y,seed,confidence\r\n"eye, left",1-a-b:cat,1.5,-2e1,3,0.5\r\n'
    text += "3,1-a-b:cat,0,1,,\r\n\r\n"
    file = write(tmp_path, "theirs.CSV", text)
    assert import_predictions(file, tmp_path / "store", "theirs", seed=7) == 2
    store = PredictionStore(tmp_path / "store")
    (eye,) = store.predictions("theirs", 3)
    assert (eye.pair_id, eye.keypoint, eye.x, eye.y, eye.confidence) == (
        "1-a-b:cat",
        "eye, left",
        1.5,
        -20.0,
        0.5,
    )
    (three,) = store.predictions("theirs", 7)
    assert (three.keypoint, three.x, three.y, three.query_id) == ("3", 0.0, 1.0, "")
    assert math.isnan(three.confidence)
    assert set(store.read()["config_hash"].to_pylist()) == {"import"}


def test_json_gives_what_csv_gives(tmp_path):
    rows = [{"pair_id": "p", "keypoint": 3, "x": 1, "y": 2.25, "seed": 1, "confidence": None}]
    rows += [{"pair_id": "p", "keypoint": "4", "x": "0.1", "y": -1, "confidence": 0.25}]
    from_json = write(tmp_path, "a.json", json.dumps(rows))
    from_csv = write(tmp_path, "a.csv", f"{HEAD},seed,confidence\np,3,1,2.25,1,\np,4,0.1,-1,,0.25\n")
    found = []
    for number, file in enumerate((from_json, from_csv)):
        import_predictions(file, tmp_path / str(number), "m")
        found.append(PredictionStore(tmp_path / str(number)).read().drop_columns(["config_hash"]).to_pylist())
    assert repr(found[0]) == repr(found[1])  # repr: NaN is not equal to itself


CASES = {
    "no file": (None, "a.csv", "cannot read"),
    "another kind": (HEAD, "a.txt", "expected a .csv or .json file"),
    "empty": ("", "a.csv", "in the first line of .* found none"),
    "a head alone": (HEAD + "\n", "a.csv", "one or more predictions"),
    "a column less": ("pair_id,keypoint,x\np,a,1\n", "a.csv", "found pair_id, keypoint, x"),
    "a column more": (HEAD + ",score\np,a,1,2,3\n", "a.csv", "found pair_id, keypoint, x, y, score"),
    "a column twice": (HEAD + ",x\np,a,1,2,3\n", "a.csv", "expected the columns"),
    "semicolons": ("pair_id;keypoint;x;y\np;a;1;2\n", "a.csv", "expected the columns"),
    "a value less": (
        HEAD + "\np,a,1,2\np,b,1\n",
        "a.csv",
        "4 values in line 3 .* found 3: is the file cut off",
    ),
    "an open quote": (HEAD + '\np,"a,1,2\n', "a.csv", "line 2"),
    "nan": (HEAD + "\np,a,nan,2\n", "a.csv", "a finite number as x in line 2 .* found 'nan'"),
    "infinite": (HEAD + "\np,a,1,-inf\n", "a.csv", "a finite number as y in line 2"),
    "no number": (HEAD + "\np,a,1,\n", "a.csv", "a finite number as y in line 2 .* found ''"),
    "no keypoint": (HEAD + "\np,,1,2\n", "a.csv", "a name as keypoint in line 2"),
    "half a seed": (HEAD + ",seed\np,a,1,2,1.5\n", "a.csv", "an integer from 0 as seed in line 2 .* '1.5'"),
    "a seed below 0": (HEAD + ",seed\np,a,1,2,-1\n", "a.csv", "an integer from 0 as seed"),
    "confidence": (HEAD + ",confidence\np,a,1,2,high\n", "a.csv", "a finite number as confidence"),
    "duplicates": (HEAD + "\np,a,1,2\np,b,1,2\np,a,1,2\n", "a.csv", "'a', seed 0 in line 2 and in line 4"),
    "not utf-8": (HEAD.encode() + b"\np,\xff,1,2\n", "a.csv", "not UTF-8"),
    "truncated json": ('[{"pair_id": "p", "keypo', "a.json", "expected JSON .* cut off"),
    "an object": ('{"pair_id": "p"}', "a.json", "a JSON list of predictions .* found dict"),
    "a list of lists": ('[["p", "a", 1, 2]]', "a.json", "an object as entry 1 .* found list"),
    "a key less": ('[{"pair_id": "p", "keypoint": "a", "x": 1}]', "a.json", "in entry 1 .* keypoint, x"),
    "json nan": ('[{"pair_id": "p", "keypoint": "a", "x": NaN, "y": 1}]', "a.json", "found nan"),
    "json null": ('[{"pair_id": "p", "keypoint": "a", "x": null, "y": 1}]', "a.json", "found None"),
    "json true": ('[{"pair_id": "p", "keypoint": "a", "x": true, "y": 1}]', "a.json", "found True"),
    "json huge": ('[{"pair_id": "p", "keypoint": "a", "x": 1' + "0" * 400 + ', "y": 1}]', "a.json", "as x"),
    "json name": ('[{"pair_id": null, "keypoint": "a", "x": 1, "y": 1}]', "a.json", "a name as pair_id"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_file_that_breaks_a_rule_is_one_line_and_leaves_nothing(tmp_path, case):
    text, name, told = CASES[case]
    path = tmp_path / name if text is None else write(tmp_path, name, text)
    with pytest.raises(StoreError, match=told) as error:
        import_predictions(path, tmp_path / "store", "theirs")
    assert "\n" not in str(error.value)
    assert not list(tmp_path.glob("store/*"))


def test_what_the_store_has_already_is_refused_as_a_whole(tmp_path):
    first = write(tmp_path, "a.csv", f"{HEAD},seed\np,a,1,2,1\n")
    second = write(tmp_path, "b.csv", f"{HEAD},seed\np,b,1,2,0\np,a,5,5,1\n")
    import_predictions(first, tmp_path / "store", "theirs")
    with pytest.raises(StoreError, match="found a second one of method 'theirs', seed 1, pair 'p'"):
        import_predictions(second, tmp_path / "store", "theirs")
    assert len(PredictionStore(tmp_path / "store")) == 1
    assert import_predictions(second, tmp_path / "store", "others") == 2
    rest = write(tmp_path, "c.csv", f"{HEAD},seed\np,c,1,2,1\n")
    assert import_predictions(rest, tmp_path / "store", "theirs") == 1
    assert len(PredictionStore(tmp_path / "store").predictions("theirs", 1)) == 2


def test_a_method_of_a_run_is_not_added_to(tmp_path):
    with PredictionStore(tmp_path / "store") as store:
        store.add("dift", 0, [PointPrediction("p", "z", "q", 1.0, 1.0, 1.0)], "abc")
    file = write(tmp_path, "a.csv", f"{HEAD}\np,a,1,2\n")
    with pytest.raises(StoreError, match="a run's own: import under another name") as error:
        import_predictions(file, tmp_path / "store", "dift")
    assert "\n" not in str(error.value)
    assert len(PredictionStore(tmp_path / "store")) == 1


@pytest.mark.parametrize(
    ("method", "seed", "told"), [(" ", 0, "name of the method"), ("m", -1, "a seed from 0")]
)
def test_a_method_has_a_name_and_a_seed(tmp_path, method, seed, told):
    file = write(tmp_path, "a.csv", f"{HEAD}\np,a,1,2\n")
    with pytest.raises(StoreError, match=told):
        import_predictions(file, tmp_path / "store", method, seed)
