"""Which pixel of the target means the same as this pixel of the source?"""

from diffcorr.correspondence.base import CorrespondenceMethod, build_method
from diffcorr.correspondence.best_buddies import BestBuddies
from diffcorr.correspondence.chance import Chance
from diffcorr.correspondence.colour_nn import ColourNN
from diffcorr.correspondence.config import FitConfig, TransferConfig
from diffcorr.correspondence.copy_position import CopyPosition
from diffcorr.correspondence.dift import DIFT
from diffcorr.correspondence.draws import RecordedDraws, SeededDraws
from diffcorr.correspondence.grid import transfer_grid
from diffcorr.correspondence.module import PromptFitModule
from diffcorr.correspondence.nearest import NearestNeighbour
from diffcorr.correspondence.predictor import MemoryEmbeddings, PromptFit
from diffcorr.correspondence.prompt_fit import FitResult, fit_prompts
from diffcorr.correspondence.prompts import FitItem, Prompt, compose_prompts
from diffcorr.correspondence.rerank import PromptFitRerank
from diffcorr.correspondence.transfer import TransferResult, transfer

__all__ = [
    "DIFT",
    "BestBuddies",
    "Chance",
    "ColourNN",
    "CopyPosition",
    "CorrespondenceMethod",
    "FitConfig",
    "FitItem",
    "FitResult",
    "MemoryEmbeddings",
    "NearestNeighbour",
    "Prompt",
    "PromptFit",
    "PromptFitModule",
    "PromptFitRerank",
    "RecordedDraws",
    "SeededDraws",
    "TransferConfig",
    "TransferResult",
    "build_method",
    "compose_prompts",
    "fit_prompts",
    "transfer",
    "transfer_grid",
]
