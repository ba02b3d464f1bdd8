"""Write tables and figures of docs/ablations.md from sweeps: ``python -m benchmarks.ablations [FOLDER]``.

FOLDER holds a sweep of each name below, as ``python eval.py -m experiment=ablate_<name>`` leaves it in
``outputs/ablations``. Sweeps that are not there leave what stands in the page.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

from benchmarks.tables import fill, markdown
from diffcorr.runs.ablation import report_ablation

NAMES = ("layers", "timestep", "sigma", "rounds", "crops", "steps", "lr")
REFERENCES = {
    "timestep": {"method.fit.timestep": "140", "method.transfer.timestep": "140"},
    "rounds": {"method.fit.rounds": "4"},
    "crops": {"method.transfer.num_crops": "4", "method.transfer.num_noises": "4"},
}
"""What the others are compared to where `experiment=ablate` has other values than the preset."""
PAGE, RESULTS, FIGURES = (
    Path("docs/ablations.md"),
    Path("docs/results/ablations"),
    Path("docs/figures/ablations"),
)
DRAWN = ("over-", "grid-", "costs-flops")
"""How the figures begin that the page shows."""


def interval(row: dict[str, Any], name: str, sign: str = "") -> str:
    """``41.7 [36.2, 47.2]``, empty where there is none."""
    names = ("value", "low", "high") if name == "value" else (name, f"{name}_low", f"{name}_high")
    if row[names[0]] == "":
        return ""
    value, low, high = (f"{row[part]:{sign}.1f}" for part in names)
    return f"{value} [{low}, {high}]"


def table(report: dict[str, Any]) -> str:
    """A row for each setting."""
    keys = report["keys"]
    short = [key.removeprefix("method.") for key in keys]
    rows = [
        [
            ", ".join(str(row[key]) for key in keys),
            interval(row, "value"),
            interval(row, "difference", "+") or ("reference" if row["value"] != "" else "not complete"),
            row["tflop"] if row["tflop"] == "" else f"{row['tflop']:.2f}",
        ]
        for row in report["settings"]
    ]
    score = f"{report['metric'].upper()} (`{report['protocol']}`)"
    return markdown([", ".join(f"`{key}`" for key in short), score, "difference", "TFLOP"], rows)


def main(arguments: list[str]) -> None:
    """Report every sweep that is there, and bring what the page shows into docs."""
    root = Path(arguments[0] if arguments else "outputs/ablations")
    for name in NAMES:
        if not (root / name).is_dir():
            continue
        report_ablation([root / name], reference=REFERENCES.get(name))
        made = root / name / "report"
        RESULTS.mkdir(parents=True, exist_ok=True)
        FIGURES.mkdir(parents=True, exist_ok=True)
        for suffix in ("json", "csv"):
            shutil.copyfile(made / f"ablation.{suffix}", RESULTS / f"{name}.{suffix}")
        pictures = []
        for path in sorted((made / "figures").glob("*.png")):
            if path.name.startswith(DRAWN):
                shutil.copyfile(path, FIGURES / f"{name}-{path.name}")
                pictures.append(f"![{name}](figures/ablations/{name}-{path.name})\n")
        report = json.loads((made / "ablation.json").read_text())
        fill(PAGE, name, "\n".join([table(report), *pictures]))


if __name__ == "__main__":
    main(sys.argv[1:])
