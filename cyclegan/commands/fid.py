"""`cyclegan fid GENERATED REFERENCE`: FID, KID and more, with the protocol that they belong to."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from pathlib import Path

from accelerate import PartialState

from cyclegan.arguments import flag, given, seed, whole_number
from cyclegan.data.images import find_images
from cyclegan.devices import usable_device, whole_float32
from cyclegan.evaluation.archive import load_statistics, save_statistics
from cyclegan.evaluation.card import save_card
from cyclegan.evaluation.cycle import errors_of
from cyclegan.evaluation.directions import config_of, directions_of
from cyclegan.evaluation.evaluator import METRICS, Settings, check_metrics, evaluate, number_name, side_of
from cyclegan.evaluation.extractors import Extractor, inception, make_extractor
from cyclegan.evaluation.inception import LAYERS
from cyclegan.evaluation.painting import PaintingLosses
from cyclegan.evaluation.pairs import (
    art_product,
    check_sides,
    check_sizes,
    pairs_by_name,
    score_content,
    score_painting,
    score_sifid,
    score_truth,
)
from cyclegan.evaluation.perceptual import lpips_from
from cyclegan.evaluation.printed import identity, print_result, print_warnings
from cyclegan.evaluation.protocols import PROTOCOLS
from cyclegan.evaluation.published import PROTOCOLS as PUBLISHED_PROTOCOLS
from cyclegan.evaluation.published import PUBLISHED
from cyclegan.evaluation.ranks import rank_and_world
from cyclegan.evaluation.statistics import EvaluationError
from cyclegan.inference.checkpoints.generator_file import DIRECTIONS
from cyclegan.networks.backbones import BACKBONES

SUMMARY = "measure how close translations are to real pictures: FID, KID and more, with their protocol"

PARTNERS = {  # what does nothing without another option
    "with_features": "save_stats",
    "confidence": "bootstrap",
    "style": "backbone",
    "backbone_weights": "backbone",
}
OF_COMPARISONS = (
    *("metrics", "bootstrap", "per_folder", "mix_protocols"),
    *("source", "truth", "cycle", "sifid", "backbone"),
)
INSTEAD = {
    "save_stats": (*OF_COMPARISONS, "published", "card"),
    "published": (*OF_COMPARISONS, "protocol"),
    "allow_random_weights": ("inception_weights",),
}
OF_INCEPTION = ("protocol", "dims", "inception_weights", "allow_random_weights")


def main(arguments: list[str]) -> int:
    options = _parser().parse_args(arguments)
    # Joins the process group that torchrun or accelerate launch has prepared.
    state = PartialState() if int(os.environ.get("WORLD_SIZE", 1)) > 1 else None
    try:
        _run(options)
    finally:
        if state:
            state.destroy_process_group()
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="cyclegan fid", description=SUMMARY)
    parser.add_argument("generated", help="folder, .npz of statistics, or results/<run> with test images")
    parser.add_argument("reference", help="folder or .npz of real pictures; with --save-stats the .npz to write")
    what = parser.add_argument_group("what is measured")
    what.add_argument("--metrics", help=f"comma-separated, of {', '.join(METRICS)} (default fid,kid; fid for .npz)")
    what.add_argument("--protocol", default="pytorch-fid", choices=PROTOCOLS, help="resize and normalisation")
    what.add_argument("--dims", type=int, default=2048, choices=LAYERS, help="Inception's layer (default 2048)")
    what.add_argument("--extractor", default="inception", help="inception, effnet-lite0, or a TorchScript or .pt2 file")
    what.add_argument("--inception-weights", type=Path, help="the FID's file of weights, or torchvision's (not FID)")
    what.add_argument("--allow-random-weights", action="store_true", help="for trials only; the result is not FID")
    what.add_argument(
        "--bootstrap", type=int, default=0, metavar="DRAWS", help="intervals of fid and kid by so many draws, say 1000"
    )
    what.add_argument("--confidence", type=float, default=0.95, help="of these intervals (default 0.95)")
    what.add_argument("--seed", type=seed, default=2020, help="of subsets and draws")
    what.add_argument("--per-folder", action="store_true", help="also each sub-folder that both sides have")
    what.add_argument("--published", choices=PUBLISHED, help="check the counts and print both protocols in its table")
    what.add_argument("--mix-protocols", action="store_true", help="compare an .npz of another protocol all the same")
    pairs = parser.add_argument_group("pictures that belong together")
    pairs.add_argument("--source", type=Path, help="the inputs of GENERATED: is their content kept?")
    pairs.add_argument("--truth", type=Path, help="what GENERATED should be: MAE, PSNR, SSIM")
    pairs.add_argument(
        "--cycle", action="store_true", help="GENERATED is a run: errors of its generators' cycle and identity"
    )
    pairs.add_argument("--sifid", action="store_true", help="SIFID of GENERATED against --truth")
    pairs.add_argument("--lpips-weights", type=Path, help="torchvision's AlexNet file: adds LPIPS to --source, --truth")
    pairs.add_argument(
        "--backbone",
        choices=BACKBONES,
        help="content loss to --source and style loss to --style, as `stylize` has them, on this network",
    )
    pairs.add_argument("--style", type=Path, help="for --backbone: a picture, or a folder of them (REFERENCE)")
    pairs.add_argument("--backbone-weights", metavar="FILE", help="its weights, where they are not found by themselves")
    files = parser.add_argument_group("files")
    files.add_argument("--card", type=Path, help="write the protocol card (JSON) here")
    files.add_argument("--save-stats", action="store_true", help="write the statistics of GENERATED to REFERENCE.npz")
    files.add_argument("--with-features", action="store_true", help="put the features into that file, for kid")
    files.add_argument("--cache", type=Path, help="folder for features, found again by the pictures' content")
    files.add_argument(
        "--direction", default="AtoB", choices=DIRECTIONS, help="which translations of a run (default AtoB)"
    )
    work = parser.add_argument_group("work")
    work.add_argument("--batch-size", type=whole_number(1), default=50)
    work.add_argument("--device", help="default: cuda where there is one, else cpu")
    work.add_argument(
        "--num-workers", type=whole_number(0), default=min(8, os.cpu_count() or 1), help="processes that read"
    )
    return parser


@whole_float32()
def _run(options: argparse.Namespace) -> None:
    generated = _pictures_of(options.generated, options.direction)
    _check(options, generated)
    extractor = _extractor(options, options.protocol)
    if options.save_stats:
        _save_stats(options, extractor, generated)
    elif options.published:
        _print_published(options, generated)
    else:
        _print_comparison(options, extractor, generated, _pictures_of(options.reference, options.direction))


def _check(options: argparse.Namespace, generated: str) -> None:
    """Raise what would else come up only after the distances, or never."""
    _check_idle(options)
    if options.save_stats and generated.endswith(".npz"):
        raise EvaluationError(f"--save-stats is for pictures, and {generated} holds statistics already: copy the file")
    if options.metrics:
        check_metrics(_metrics(options))
    if options.cycle:
        config_of(Path(options.generated), "--cycle")
    if options.sifid and not options.truth:
        raise EvaluationError("--sifid compares GENERATED with pictures of its names: name their folder by --truth")
    if options.lpips_weights and not options.lpips_weights.is_file():
        raise EvaluationError(f"--lpips-weights: no file {options.lpips_weights}")
    if options.lpips_weights and not (options.source or options.truth):
        raise EvaluationError("--lpips-weights: LPIPS compares GENERATED with --source or --truth, name one of them")
    if options.backbone:
        _styles_of(options)
        if not options.source:
            raise EvaluationError("--backbone compares GENERATED with its inputs: name their folder by --source")
    if options.lpips_weights:
        lpips_from(options.lpips_weights)
    if options.source:
        pairs = pairs_by_name(generated, options.source)
        if options.backbone:
            check_sides(pairs)
    if options.truth:
        check_sizes(pairs_by_name(generated, options.truth))
    if options.card and options.card.suffix != ".json":  # a picture, say, that the card would replace
        raise EvaluationError(f"--card {options.card}: a card is JSON, so name a file that ends in .json")
    for path in (options.card, _statistics_file(options) if options.save_stats else None):
        if path:
            if path.is_dir():
                raise EvaluationError(f"{path} is a folder: name a file to write")
            path.parent.mkdir(parents=True, exist_ok=True)


def _check_idle(options: argparse.Namespace) -> None:
    """Raises EvaluationError for options that would do nothing."""
    named = given(options, _parser())
    for name, partner in PARTNERS.items():
        if name in named and partner not in named:
            raise EvaluationError(f"{flag(name)} does nothing without {flag(partner)}: add that, or leave it out")
    for name, others in INSTEAD.items():
        if name in named and (idle := [flag(other) for other in named if other in others]):
            raise EvaluationError(f"{flag(name)} goes without {', '.join(idle)}: leave out one or the other")
    # SIFID is of Inception's layer 64 whatever the extractor.
    of_inception = ("dims",) if options.sifid else OF_INCEPTION
    if options.extractor != "inception" and (idle := [flag(name) for name in of_inception if name in named]):
        raise EvaluationError(f"{', '.join(idle)}: for --extractor inception only, {options.extractor} goes without")
    if "direction" in named and not any(map(_is_run, (options.generated, options.reference))):
        raise EvaluationError("--direction is of a run's translations, and neither GENERATED nor REFERENCE is a run")


def _extractor(options: argparse.Namespace, protocol: str) -> Extractor:
    return make_extractor(
        options.extractor,
        protocol,
        options.dims,
        options.inception_weights,
        usable_device(options.device),
        options.allow_random_weights,
    )


def _is_run(path: str) -> bool:
    return (Path(path) / "config.yaml").is_file()


def _pictures_of(path: str, direction: str) -> str:
    """The path itself, or a run's translations; warns where the generator was trained on since."""
    if not _is_run(path):
        return path
    translations = Path(path) / "test" / direction
    if not translations.is_dir():
        raise FileNotFoundError(f"{path} is a run without {translations}: translate its test pictures with test.py")
    generator = Path(path) / f"{direction}.safetensors"
    made = max((picture.stat().st_mtime for picture in translations.rglob("*")), default=0.0)
    if generator.is_file() and generator.stat().st_mtime > made and rank_and_world()[0] == 0:
        print_warnings([f"{generator} is newer than {translations}: test.py --run {path} translates with it"])
    return str(translations)


def _save_stats(options: argparse.Namespace, extractor: Extractor, generated: str) -> None:
    metrics = ["fid", "kid"] if options.with_features else ["fid"]
    features = side_of(generated, extractor, metrics, **_work(options))
    if rank_and_world()[0] == 0:
        target = _statistics_file(options)
        save_statistics(target, features, options.with_features)
        print_warnings(features.warnings)
        print(f"{target}: {identity(extractor)}, n = {features.n}")


def _statistics_file(options: argparse.Namespace) -> Path:
    return Path(options.reference.removesuffix(".npz") + ".npz")


def _print_comparison(options: argparse.Namespace, extractor: Extractor, generated: str, reference: str) -> None:
    metrics = _metrics(options, generated, reference)
    settings = Settings(bootstrap=options.bootstrap, confidence=options.confidence, seed=options.seed)
    chosen = dict(metrics=metrics, settings=settings, mix_protocols=options.mix_protocols, **_work(options))
    painting = None
    if options.backbone:
        painting = PaintingLosses(options.backbone, options.backbone_weights, usable_device(options.device))
    folders = {}
    if options.per_folder:
        for name in _common_folders(generated, reference):
            folders[name] = evaluate(Path(generated) / name, Path(reference) / name, extractor, **chosen)
    result = evaluate(generated, reference, extractor, **chosen)
    if rank_and_world()[0] == 0:
        result.numbers.update(_pair_numbers(options, generated))
        if painting:
            pairs = pairs_by_name(generated, options.source)
            result.numbers.update(score_painting(pairs, _styles_of(options), painting))
        result.numbers.update(art_product(result.numbers, number_name("fid", extractor)))
        print_result(result, folders, extractor)
        if options.card:
            result.card["folders"] = {name: part.card for name, part in folders.items()}
            save_card(options.card, result.card)


def _metrics(options: argparse.Namespace, *sides: str) -> list[str]:
    if options.metrics:
        return [metric.strip() for metric in options.metrics.split(",")]
    summed_up = any(side.endswith(".npz") and load_statistics(side).features is None for side in sides)
    return ["fid"] if summed_up else ["fid", "kid"]


def _work(options: argparse.Namespace) -> dict:
    return dict(batch_size=options.batch_size, workers=options.num_workers, cache=options.cache, progress=True)


def _common_folders(generated: str, reference: str) -> list[str]:
    names = [{path.name for path in _visible(Path(side)) if path.is_dir()} for side in (generated, reference)]
    if not names[0] & names[1]:
        raise EvaluationError(f"{generated} and {reference} have no sub-folders of the same names")
    return sorted(names[0] & names[1])


def _visible(folder: Path) -> Iterator[Path]:
    """What lies in it, without the hidden files and folders that `find_images` leaves out, too."""
    if not folder.is_dir():
        raise EvaluationError(f"--per-folder: {folder} is no folder with sub-folders")
    return (path for path in folder.iterdir() if not path.name.startswith("."))


def _pair_numbers(options: argparse.Namespace, generated: str) -> dict[str, float]:
    numbers = _cycle_numbers(options) if options.cycle else {}
    lpips = lpips_from(options.lpips_weights) if options.lpips_weights else None
    if options.source:
        numbers |= score_content(pairs_by_name(generated, options.source), lpips)
    if options.truth:
        numbers |= score_truth(pairs_by_name(generated, options.truth), lpips)
    if options.sifid:
        early = inception(options.protocol, 64, options.inception_weights, "cpu", options.allow_random_weights)
        numbers |= score_sifid(pairs_by_name(generated, options.truth), early)
    return numbers


def _styles_of(options: argparse.Namespace) -> list[Path]:
    style = Path(options.style or _pictures_of(options.reference, options.direction))
    if style.suffix == ".npz":
        raise EvaluationError("--backbone: name the style, a picture or a folder of them, by --style")
    return [style] if style.is_file() else find_images(style)


def _cycle_numbers(options: argparse.Namespace) -> dict[str, float]:
    run, device = Path(options.generated), usable_device(options.device)
    (way,) = directions_of(config_of(run, "--cycle"), run, "test", options.direction, device, paired=False)
    return errors_of(way, device=device)


def _print_published(options: argparse.Namespace, generated: str) -> None:
    published = PUBLISHED[options.published]
    ours = {}
    for protocol in PUBLISHED_PROTOCOLS:
        extractor = _extractor(options, protocol)
        if not extractor.is_fid or extractor.layer != "2048":
            raise EvaluationError(
                f"the published numbers are FIDs; {extractor.name} at layer {extractor.layer} gives none"
            )
        result = evaluate(generated, options.reference, extractor, **_work(options))
        counts = result.card["real"]["n"], result.card["fake"]["n"]
        if counts != (published.n_real, published.n_fake):
            raise EvaluationError(
                f"{options.published} is published for {published.n_real} real ({published.reference}) and "
                f"{published.n_fake} translated test images, got {counts[0]} and {counts[1]}"
            )
        ours[protocol] = result.numbers["fid"]
        if options.card and rank_and_world()[0] == 0:
            save_card(options.card.with_suffix(f".{protocol}.json"), result.card)
    if rank_and_world()[0] == 0:
        for name, numbers in sorted({**published.results, "yours": ours}.items(), key=lambda row: row[1]["clean"]):
            print(f"{name:14s}" + "".join(f"  {key} {numbers.get(key, float('nan')):7.2f}" for key in ours))
        print(f"FID:  {ours['pytorch-fid']}")
