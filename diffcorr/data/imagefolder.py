"""Captioned pictures of one's own: a folder with a ``metadata.jsonl`` (Hugging Face imagefolder)."""

from __future__ import annotations

import json
from pathlib import Path

from diffcorr.data.counts import check_count
from diffcorr.data.images import read_image
from diffcorr.data.partworld.dataset import CaptionedImage
from diffcorr.errors import DataError


class CaptionedImageFolder:
    """Pictures and captions named by ``metadata.jsonl``: one ``{"file_name": ..., "text": ...}`` a line.

    Args:
        root: the folder.
        split: only a label here.
        num_images: the first so many (None: all).

    Raises:
        DataError: no ``metadata.jsonl``, a line that is no such record, a file outside of the folder, or
            no line at all.
    """

    def __init__(self, root: str, split: str = "train", num_images: int | None = None) -> None:
        self.root, self.split = Path(root), split
        self.name = self.root.name
        index = self.root / "metadata.jsonl"
        if not index.is_file():
            raise DataError(
                f"expected {index} with one file_name and text a line, found none; write it first"
            )
        self.rows: list[tuple[str, str]] = []
        for number, line in enumerate(index.read_text(encoding="utf-8").splitlines(), 1):
            if not line.strip():
                continue
            try:
                record = json.loads(line)
                self.rows.append((str(record["file_name"]), str(record["text"])))
            except (ValueError, KeyError, TypeError):
                raise DataError(
                    f"expected file_name and text in line {number} of {index}, found {line[:60]!r}; mend it"
                ) from None
            if not (self.root / self.rows[-1][0]).resolve().is_relative_to(self.root.resolve()):
                raise DataError(f"expected files inside of {root}, found {self.rows[-1][0]}; move it there")
        self.rows = self.rows[: check_count("num_images", num_images)]
        if not self.rows:
            raise DataError(
                f"expected captioned images in {index}, found none; add lines or choose another folder"
            )

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> CaptionedImage:
        file_name, text = self.rows[index]
        return {"image_id": file_name, "image": read_image(self.root / file_name), "caption": text}
