import dataclasses
from pathlib import Path

import lightning
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger

from diffcorr.attention import MeanAttention
from diffcorr.config import config_hash
from diffcorr.correspondence import FitConfig, FitItem, PromptFit, PromptFitModule, fit_prompts
from diffcorr.correspondence.module import PackSteps
from diffcorr.errors import ImageError
from diffcorr.stores.embeddings import EmbeddingStore
from diffcorr.types import Query
from tests.helpers.fit_reference import image_of
from tests.helpers.tiny_models import tiny_backbone

IMAGES = {"a": image_of(0, 48, 40), "b": image_of(1, 40, 48)}
CONFIG = FitConfig(
    steps=4, lr=0.05, sigma=0.1, crop=0.8, rounds=2, layers=[3, 4, 5], loss_resolution=None, pack_size=3
)
MEAN = MeanAttention()
QUERIES = [Query("toy", image, f"k{i}", (5.0 + 9 * i, 20.0)) for image in "ba" for i in range(2)]
ITEMS = [FitItem(query, round) for query in QUERIES for round in range(2)]


def trainer(tmp_path: Path, **options: object) -> lightning.Trainer:
    settings = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    return lightning.Trainer(
        **{**settings, **options},  # type: ignore[arg-type]
        accelerator="cpu",
        enable_model_summary=False,
        default_root_dir=tmp_path,
        max_epochs=3,
    )


@pytest.fixture
def store(tmp_path: Path) -> EmbeddingStore:
    return EmbeddingStore(tmp_path / "store", tiny_backbone().fingerprint, config_hash(CONFIG.identity()))


def test_the_trainer_fits_what_the_bare_loop_fits(tmp_path: Path, store: EmbeddingStore) -> None:
    backbone = tiny_backbone()
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    module = PromptFitModule(backbone, ITEMS, IMAGES, CONFIG, MEAN, store)
    logger = CSVLogger(tmp_path, name="csv")
    run = trainer(tmp_path, logger=logger, log_every_n_steps=1)
    run.fit(module)
    expected = fit_prompts(tiny_backbone(), ITEMS, IMAGES, CONFIG, MEAN)
    for row, (query, round) in enumerate(ITEMS):
        found = store.get(query.id)
        assert found is not None
        torch.testing.assert_close(found[round], expected.embeddings[row], rtol=0, atol=1e-5)
        torch.testing.assert_close(store.losses(query.id, round), expected.losses[:, row])
    # three packs of four steps: one epoch, whatever max_epochs says, and every step logged
    assert run.global_step == 12
    rows = (Path(logger.log_dir) / "metrics.csv").read_text().splitlines()
    assert "fit/loss" in rows[0]
    assert len(rows) == 1 + 12
    assert all(torch.equal(before[name], value) for name, value in backbone.state_dict().items())
    assert all(p.grad is None for p in backbone.parameters())


def test_nothing_to_fit(tmp_path: Path, store: EmbeddingStore) -> None:
    run = trainer(tmp_path)
    run.fit(PromptFitModule(tiny_backbone(), [], IMAGES, CONFIG, MEAN, store))
    assert run.global_step == 0
    assert len(store) == 0


def test_an_interrupted_run_goes_on_where_it_stopped(tmp_path: Path, store: EmbeddingStore) -> None:
    backbone = tiny_backbone(torch.float64)
    method = PromptFit(backbone, MEAN, CONFIG, embeddings=store)
    first = PromptFitModule(backbone, method.missing(QUERIES), IMAGES, CONFIG, MEAN, store)
    trainer(tmp_path, max_steps=7).fit(first)  # in the middle of the second pack
    assert len(store) == 3
    rest = method.missing(QUERIES)
    assert len(rest) == 5
    trainer(tmp_path).fit(PromptFitModule(backbone, rest, IMAGES, CONFIG, MEAN, store))
    assert method.missing(QUERIES) == []
    expected = fit_prompts(backbone, ITEMS, IMAGES, CONFIG, MEAN).embeddings.float()
    found = torch.cat([store.get(query.id) for query in QUERIES])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_checkpoints_leave_frozen_weights_out(tmp_path: Path, store: EmbeddingStore) -> None:
    run = trainer(tmp_path, max_steps=2)
    run.fit(PromptFitModule(tiny_backbone(), ITEMS, IMAGES, CONFIG, MEAN, store))
    run.save_checkpoint(tmp_path / "last.ckpt")
    saved = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert list(saved["state_dict"]) == ["embeddings"]


def test_packs_come_one_after_the_other_from_first_step_to_last() -> None:
    assert list(PackSteps([3, 1], 2)) == [(3, 0), (3, 1), (1, 0), (1, 1)]
    assert len(PackSteps([3, 1], 2)) == 4
    with pytest.raises(TypeError):  # as Lightning asks whether there is a length
        len(PackSteps(iter([3, 1]), 2))


class Unreadable(dict):
    """Images of which one cannot be decoded."""

    def __getitem__(self, key: str) -> object:
        if key == "b":
            raise ImageError("expected a readable image b, found none; replace the file")
        return super().__getitem__(key)


def test_a_bad_image_and_a_bad_point_leave_the_others_to_be_fitted(
    tmp_path: Path, store: EmbeddingStore
) -> None:
    outside = FitItem(Query("toy", "a", "k0!", (500.0, 3.0)), 0)  # sorts between good ones, into their pack
    failures = {}
    module = PromptFitModule(
        tiny_backbone(), [*ITEMS, outside], Unreadable(IMAGES), CONFIG, MEAN, store,
        failed=lambda key, error: failures.update({key: str(error)}),
    )  # fmt: skip
    trainer(tmp_path).fit(module)
    expected = fit_prompts(tiny_backbone(), ITEMS, IMAGES, CONFIG, MEAN)
    for row, (query, round) in enumerate(ITEMS):
        assert ((query.id, round) in store) == (query.image_id == "a")
        if query.image_id == "a":
            torch.testing.assert_close(
                store.get(query.id)[round], expected.embeddings[row], rtol=0, atol=1e-5
            )
    bad = [f"toy/b/k{i} round {round}" for i in range(2) for round in range(2)]
    assert sorted(failures) == ["toy/a/k0! round 0", *bad]
    assert "query toy/a/k0!" in failures["toy/a/k0! round 0"]
    with pytest.raises(ImageError):
        trainer(tmp_path).fit(PromptFitModule(tiny_backbone(), [outside], IMAGES, CONFIG, MEAN, store))


def test_zero_steps(tmp_path: Path, store: EmbeddingStore) -> None:
    config = dataclasses.replace(CONFIG, steps=0)
    run = trainer(tmp_path)
    run.fit(PromptFitModule(tiny_backbone(), ITEMS, IMAGES, config, MEAN, store))
    assert run.global_step == 0
    expected = fit_prompts(tiny_backbone(), ITEMS, IMAGES, config, MEAN).embeddings  # what it starts from
    for row, (query, round) in enumerate(ITEMS):
        torch.testing.assert_close(store.get(query.id)[round], expected[row])
