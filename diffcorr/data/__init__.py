"""Data sets: one file (or folder) each, and the geometry between an image and what a model sees."""
