"""diffcorr asks frozen diffusion models where things are."""

__version__ = "0.1.0"
