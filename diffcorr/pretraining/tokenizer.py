"""A byte-pair tokenizer trained on the captions, in the files that CLIP's tokenizer reads."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import CLIPTokenizer

START, END = "<|startoftext|>", "<|endoftext|>"


def train_tokenizer(
    captions: Iterable[str], folder: str | Path, vocab_size: int, max_length: int
) -> CLIPTokenizer:
    """Train BPE merges on captions and write them as every version of transformers reads them.

    Args:
        captions: the texts; lower-cased, split at spaces and punctuation as CLIP does.
        folder: where the tokenizer is written.
        vocab_size: upper bound of the number of tokens.
        max_length: P, tokens of a prompt with start, end and padding.

    Returns:
        The tokenizer, read back from the folder.
    """
    bpe = Tokenizer(models.BPE(continuing_subword_prefix="", end_of_word_suffix="</w>", unk_token=END))
    bpe.normalizer = normalizers.Lowercase()
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation()]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[START, END],
        end_of_word_suffix="</w>",
        # every byte that a user may type has a token
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(captions, trainer)
    model = json.loads(bpe.to_str())["model"]
    # a byte at the end of a word is a symbol of its own
    for symbol in pre_tokenizers.ByteLevel.alphabet():
        model["vocab"].setdefault(f"{symbol}</w>", len(model["vocab"]))
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_vocabulary(model, folder)
    marks = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": END}
    config = {"tokenizer_class": "CLIPTokenizer", "model_max_length": max_length, **marks}
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    CLIPTokenizer.from_pretrained(folder).save_pretrained(folder)
    return CLIPTokenizer.from_pretrained(folder)


def write_vocabulary(model: Mapping[str, Any], folder: Path) -> None:
    """Write ``vocab.json`` and ``merges.txt``, which transformers 4 reads where 5 reads ``tokenizer.json``.

    Args:
        model: the part ``model`` of a ``tokenizer.json``.
        folder: of the tokenizer.
    """
    merges = [m if isinstance(m, str) else " ".join(m) for m in model["merges"]]
    (folder / "vocab.json").write_text(json.dumps(model["vocab"], ensure_ascii=False), encoding="utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n", encoding="utf-8")
