"""The web page: points clicked and found, segments, words, runs. Needs the extra ``app``."""

from diffcorr.app.serve import serve

__all__ = ["serve"]
