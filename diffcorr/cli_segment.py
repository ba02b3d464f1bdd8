"""The commands ``diffcorr segment`` and ``diffcorr words``: what belongs together, and where words are."""

from __future__ import annotations

import argparse
from typing import Any

import diffcorr
from diffcorr.cli_common import (
    add_command,
    add_model_options,
    add_outputs,
    add_preset_options,
    model_options,
    tell,
    word_list,
)

SEGMENT_EXAMPLE = """example:
  diffcorr segment photo.jpg --tau 0.9 --out masks.png
  diffcorr segment photo.jpg --labels "dog, grass, sky" --out named.png --mask ids.png

Prints a line for every segment: its id, its share of the image, its bounding box in pixels, and its name
where there are words to name it by.

exit status: 0 done, 2 wrong arguments or input"""

WORDS_EXAMPLE = """example:
  diffcorr words photo.jpg "a picture of a cat" --out words.png

Prints a line for every word of the caption: where the model sees it most, in pixels, and how much attention
it gets there and on average.

exit status: 0 done, 2 wrong arguments or input"""


def add_segment_commands(commands: Any) -> None:
    """Add ``segment`` and ``words`` to the parsers of ``diffcorr``."""
    segment = add_command(commands, "segment", "cut an image into segments", SEGMENT_EXAMPLE)
    segment.add_argument("image", help="image to cut")
    segment.add_argument("--tau", type=float, help="larger values merge more (default: the preset's)")
    segment.add_argument(
        "--labels",
        "--words",
        dest="words",
        type=word_list,
        metavar="A,B,...",
        help="names to choose from; segments of one name are one",
    )
    segment.add_argument("--caption", help="what the image shows, in a sentence whose words name segments")
    segment.add_argument("--captioner", help="a captioning model that says it: a folder or hub name")
    segment.add_argument(
        "--template", default="a photo of a {}", help="how a word without a caption is shown to the model"
    )
    add_model_options(segment)
    add_preset_options(segment)
    add_outputs(segment)
    segment.add_argument("--mask", metavar="PNG", help="write the mask itself: pixel values are segment ids")
    segment.set_defaults(run=_segment)

    words = add_command(commands, "words", "show where a model sees each word of a caption", WORDS_EXAMPLE)
    words.add_argument("image", help="image to look at")
    words.add_argument("caption", help="what it shows, in a sentence")
    words.add_argument("--timestep", type=int, default=140, help="noise level, 0..999 (default: 140)")
    add_model_options(words)
    add_outputs(words)
    words.set_defaults(run=_words)


def _segment(args: argparse.Namespace) -> None:
    changes = {} if args.tau is None else {"tau": args.tau}
    segmenter = diffcorr.Segmenter.from_pretrained(args.backbone, **model_options(args) | changes)
    segmentation = segmenter.segment(
        args.image, args.words, args.caption, args.captioner, template=args.template
    )
    result = segmentation.to_dict()
    lines = [
        "segment {}: {:.1f} % of the image, box {} {} {} {}".format(
            s["id"], 100 * s["area"] / segmentation.mask.size, *s["bbox"]
        )
        + (f", {s['word']}" if "word" in s else "")
        for s in result["segments"]
    ]
    if args.out:
        segmentation.plot(args.out)
    if args.mask:
        segmentation.save(args.mask)
    tell(args, lines, {"method": segmenter.method.name, "image": args.image, **result})


def _words(args: argparse.Namespace) -> None:
    mapper = diffcorr.WordMapper.from_pretrained(args.backbone, timestep=args.timestep, **model_options(args))
    maps = mapper.map(args.image, args.caption)
    result = maps.to_dict()
    width = max(len(row["word"]) for row in result["words"])
    lines = [
        "{:<{}}  most at ({:.0f}, {:.0f})  {:.3f}, mean {:.3f}".format(
            row["word"], width, *row["peak"], row["max"], row["mean"]
        )
        for row in result["words"]
    ]
    if args.out:
        maps.plot(args.out)
    tell(args, lines, {"image": args.image, "timestep": args.timestep, **result})
