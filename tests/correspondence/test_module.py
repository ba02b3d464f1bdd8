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


@pytest.mark.parametrize("world_size", [1, 2, 3, 5])
def test_packs_are_shared_out_whole(world_size: int) -> None:
    shares = [list(PackSteps(4, 3, rank, world_size)) for rank in range(world_size)]
    assert sorted(step for share in shares for step in share) == [(p, s) for p in range(4) for s in range(3)]
    for rank, share in enumerate(shares):
        assert len(share) == len(PackSteps(4, 3, rank, world_size))
        assert [step for _, step in share] == [0, 1, 2] * (len(share) // 3)


def test_zero_steps(tmp_path: Path, store: EmbeddingStore) -> None:
    config = dataclasses.replace(CONFIG, steps=0)
    run = trainer(tmp_path)
    run.fit(PromptFitModule(tiny_backbone(), ITEMS, IMAGES, config, MEAN, store))
    assert run.global_step == 0
