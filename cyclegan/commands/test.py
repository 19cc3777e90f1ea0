"""`cyclegan test`, and test.py."""

from __future__ import annotations

import argparse
from pathlib import Path

from cyclegan.arguments import flag, given, whole_number
from cyclegan.devices import usable_device
from cyclegan.evaluation.evaluator import check_metrics
from cyclegan.evaluation.extractors import make_extractor
from cyclegan.evaluation.protocols import PROTOCOLS
from cyclegan.evaluation.split import about_distances, translate_split
from cyclegan.evaluation.statistics import EvaluationError

SUMMARY = "translate and score the test split of a run, write its gallery"

OF_METRICS = ("protocol", "extractor", "inception_weights")
OF_INCEPTION = ("protocol", "inception_weights")


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="test.py", description="Translate and score a split, write its gallery.")
    parser.add_argument("--run", required=True, type=Path, help="the run's folder, results/<name>")
    parser.add_argument("--split", default="test", choices=["test", "train"], help="default: test")
    parser.add_argument("--direction", default="both", choices=["AtoB", "BtoA", "both"], help="default: both")
    parser.add_argument("--device", help="default: cuda where there is one, else cpu")
    parser.add_argument(
        "--batch-size", type=whole_number(1), default=8, help="pictures of one size at a time; default: 8"
    )
    parser.add_argument(
        "--metrics", default="", help="distances to the other domain's test pictures, e.g. fid,kid (docs/evaluation.md)"
    )
    parser.add_argument(
        "--protocol", default="pytorch-fid", choices=PROTOCOLS, help="of --metrics; default pytorch-fid"
    )
    parser.add_argument(
        "--extractor",
        default="inception",
        help="of --metrics: inception (default), effnet-lite0 (no download; not FID), a TorchScript or .pt2 file",
    )
    parser.add_argument(
        "--paired",
        default="auto",
        choices=["auto", "yes", "no"],
        help="whether test pictures of one name show the same thing, so that translations can be compared with the "
        "truth; auto (default): unless the names are mere numbers, which agree by chance",
    )
    parser.add_argument("--inception-weights", type=Path, help="the FID's file of weights, where it is not downloaded")
    options = parser.parse_args(arguments)
    device = usable_device(options.device)
    metrics = [name.strip() for name in options.metrics.split(",") if name.strip()]
    _check(options, parser, metrics)
    extractor = None
    if metrics:
        extractor = make_extractor(
            options.extractor, options.protocol, weights=options.inception_weights, device=device
        )
    paired = {"auto": None, "yes": True, "no": False}[options.paired]
    results = translate_split(
        options.run, options.split, options.direction, device, options.batch_size, metrics, extractor, paired
    )
    for direction, result in results.items():
        print(f"\n{direction}: {result['images']} pictures in {result['folder']}. {result['truths']}")
        for line in result["table"]:
            print("  " + line[0].ljust(20) + "".join(cell.rjust(12) for cell in line[1:3]) + f"   {line[3]}")
        for sentence in about_distances(result["distances"]):
            print(f"  {sentence}")
    print(f"\ngallery: {options.run / options.split / 'index.html'}")
    return 0


def _check(options: argparse.Namespace, parser: argparse.ArgumentParser, metrics: list[str]) -> None:
    """Raise for unknown metrics, before weights are looked for, and for options that would do nothing."""
    named = given(options, parser)
    if metrics:
        check_metrics(metrics)
    elif told := ", ".join(flag(name) for name in OF_METRICS if name in named):
        raise EvaluationError(f"{told}: for --metrics only; name some, e.g. --metrics fid,kid")
    if options.extractor != "inception" and (told := ", ".join(flag(name) for name in OF_INCEPTION if name in named)):
        raise EvaluationError(f"{told}: for --extractor inception only, {options.extractor} goes without")
