"""What runs leave on disk: embeddings, predictions, masks and metric records.

Every file is written beside its place and renamed into it, so that a reader sees a whole file or
none; no format here can execute code.
"""

from diffcorr.stores.embeddings import EmbeddingStore
from diffcorr.stores.masks import MaskStore
from diffcorr.stores.predictions import PredictionStore, configurations, read_predictions
from diffcorr.stores.records import MetricRecord, read_records, write_records

__all__ = [
    "EmbeddingStore",
    "MaskStore",
    "MetricRecord",
    "PredictionStore",
    "configurations",
    "read_predictions",
    "read_records",
    "write_records",
]
