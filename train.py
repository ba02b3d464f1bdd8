"""Fit prompt embeddings on source queries, or train the embedded model.

python train.py                                  # fit the queries of the PartWorld test list
python train.py method.fit.sigma=0.08 seed=1     # any value can be changed
python train.py -m method.fit.sigma=0.04,0.08    # a sweep
python train.py experiment=pretrain_tiny         # train the embedded model
"""

from omegaconf import DictConfig

from diffcorr.config import entry_point
from diffcorr.errors import UnknownNameError
from diffcorr.runs.train import fit, pretrain

TASKS = {"fit": fit, "pretrain": pretrain}


@entry_point("train")
def main(config: DictConfig) -> None:
    """Run the task that the configuration names."""
    if config.task not in TASKS:
        raise UnknownNameError("task of train.py", config.task, TASKS)
    TASKS[config.task](config)


if __name__ == "__main__":
    main()
