"""Predict, store, score and report.

python eval.py                              # correspondence on the PartWorld test list
python eval.py task=segmentation            # segmentation
python eval.py method=dift baselines=[]     # another method, on its own
python eval.py -m method.transfer.timestep=50,140,300   # a sweep; nothing is fitted twice
"""

from omegaconf import DictConfig

from diffcorr.config import entry_point
from diffcorr.runs.evaluate import evaluate


@entry_point("eval")
def main(config: DictConfig) -> None:
    """Run the task that the configuration names."""
    evaluate(config)


if __name__ == "__main__":
    main()
