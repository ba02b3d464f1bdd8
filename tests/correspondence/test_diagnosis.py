"""Reading a fitted set place by place, against the same reading asked for by hand."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.optimize import minimize

from diffcorr.attention import MeanAttention
from diffcorr.correspondence import FitConfig, PromptFit, TransferConfig
from diffcorr.correspondence.diagnosis import SIDE, Diagnosis, Place
from diffcorr.correspondence.pack import gaussian_target
from diffcorr.types import Pair
from tests.helpers.fit_reference import image_of
from tests.helpers.tiny_models import tiny_backbone

FIT = FitConfig(steps=2, rounds=2, layers=[3, 4], bank_size=4, lr=0.1, sigma=0.1)
READ = TransferConfig(layers=[3], timestep=140, crops="grid", num_crops=4, trunk="prompt")


def pair(number: int) -> Pair:
    size, box = (32, 32), (0.0, 0.0, 32.0, 32.0)
    points = ((8.0, 9.0), (20.0, 25.0)), ((10.0, 7.0), (22.0 - number, 27.0))
    return Pair(f"p{number}", "toy", "c", "a", f"b{number}", ("k0", "k1"), *points, box, box, size, size)


@pytest.fixture(scope="module")
def diagnosis() -> Diagnosis:
    method = PromptFit(tiny_backbone(torch.float64), None, FIT, READ)
    method.fit(pair(0).queries(), {"a": image_of(0, 32, 32)})
    found = Diagnosis(method, [20, 140], layers=[3, 4])
    for number in (0, 1):
        found.add(pair(number), image_of(number + 1, 32, 32))
    return found


def test_every_place_answers_as_if_it_were_read_alone(diagnosis: Diagnosis) -> None:
    layers = [layer.name for layer in diagnosis.layers]
    means = [Place(t, name, None) for t in (20, 140) for name in layers]
    assert set(diagnosis.points) == {*means, *diagnosis.places()}
    for place in (means[1], Place(140, layers[0], 2), Place(140, layers[1], 3)):
        read = TransferConfig(layers=[place.layer], timestep=place.timestep, crops="grid", num_crops=4)
        variant = MeanAttention(None if place.head is None else [place.head])
        for number in (0, 1):
            reader = diagnosis.method.reading(read, variant)
            alone = reader.locate(pair(number).queries(), image_of(number + 1, 32, 32), f"toy/b{number}")
            kept = [p for p in diagnosis.points[place] if p.pair_id == f"p{number}"]
            assert [p.keypoint for p in kept] == ["k0", "k1"]
            for one, other in zip(kept, alone, strict=True):
                assert (one.x, one.y) == pytest.approx(other.point)


def test_weights_minimise_the_squared_error(diagnosis: Diagnosis) -> None:
    """Against a bounded minimisation by scipy over maps that are read one by one."""
    columns, wanted = [], []
    for place in diagnosis.places():
        read = TransferConfig(layers=[place.layer], crops="grid", num_crops=4)
        reader = diagnosis.method.reading(read, MeanAttention([place.head]))
        column = []
        for number in (0, 1):
            image = image_of(number + 1, 32, 32)
            for r in reader.locate(pair(number).queries(), image, f"toy/b{number}", heatmaps=True):
                column.append(F.adaptive_avg_pool2d(r.layer_maps[place.layer][None], SIDE).flatten())
        columns.append(torch.cat(column))
    for number in (0, 1):
        truth = torch.tensor(pair(number).target_points, dtype=torch.float64) / 32
        wanted.append(gaussian_target(truth, SIDE, 0.1).flatten())
    maps, target = torch.stack(columns, 1).numpy(), torch.cat(wanted).numpy()

    def error(weights: np.ndarray) -> float:
        return float(np.square(maps @ weights - target).sum())

    found = np.array([w for heads in diagnosis.weights().values() for w in heads])
    assert found.min() >= 0
    assert found.sum() == pytest.approx(1, abs=1e-4)
    best = minimize(error, np.ones(maps.shape[1]), bounds=[(0, None)] * maps.shape[1], tol=1e-12)
    scale = (maps @ found) @ target / np.square(maps @ found).sum()
    assert error(scale * found) == pytest.approx(best.fun, rel=1e-3)
