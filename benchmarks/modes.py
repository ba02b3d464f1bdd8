"""Named ways to run one preset: the plain process, the fast ones that equal it, and those that do not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf

from diffcorr.config import config_folder


@dataclass(frozen=True)
class Mode:
    """Changes of a method's config, and the precision of the weights (None: half the bits where quick)."""

    changes: dict[str, Any]
    dtype: str | None = None


GRID = {"crops": "grid", "num_crops": 4}
FOLLOW = {"crops": "follow", "num_crops": 5, "num_noises": 1, "trunk": "prompt"}


def _packed(**changes: dict[str, Any]) -> dict[str, Any]:
    """What the preset `packed` changes, and more."""
    node = OmegaConf.load(config_folder() / "method" / "packed.yaml")
    merged = OmegaConf.merge({key: node[key] for key in ("fit", "transfer")}, changes)  # type: ignore[index]
    return OmegaConf.to_container(merged)  # type: ignore[return-value]


MODES = {
    # batch 1, fp32, every crop of every step of the fit encoded anew, all of the U-Net run; in the target a
    # crop that is seen twice is encoded once
    "plain": Mode(
        {
            "fit": {"pack_size": 1, "bank_size": 0, "stop_early": False},
            "transfer": {"batch_size": 1, "bank_size": 0},
        },
        "float32",
    ),
    "exact_fp32": Mode({}, "float32"),
    "exact": Mode({}),
    "small_bank": Mode({"fit": {"bank_size": 9}, "transfer": {"bank_size": 9}}),
    "grid": Mode({"transfer": GRID}),
    "early_stop": Mode({"fit": {"stop_patience": 3, "stop_tolerance": 0.05}}),
    "one_prompt_a_round": Mode({"fit": {"share": "round"}, "transfer": GRID}),
    "one_prompt": Mode({"fit": {"share": "image"}, "transfer": GRID}),
    "packed": Mode(_packed()),
    "packed_follow": Mode(_packed(transfer=FOLLOW)),
}


def changed(method: DictConfig, mode: Mode) -> DictConfig:
    """The method's config in that mode, with all that it refers to."""
    merged = OmegaConf.merge(method, mode.changes)
    assert isinstance(merged, DictConfig)
    merged._set_parent(method._get_parent())
    return merged
