"""A run's test split: every picture translated, the truth compared where it is known, and a gallery of it all."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from cyclegan.data.images import quantised
from cyclegan.data.transforms import to_picture
from cyclegan.devices import whole_float32
from cyclegan.evaluation.card import finite, save_card
from cyclegan.evaluation.content import change
from cyclegan.evaluation.cycle import identity_errors
from cyclegan.evaluation.directions import Direction, batches, config_of, directions_of, masks_of, translation
from cyclegan.evaluation.evaluator import check_metrics, evaluate, higher_is_better, side_of
from cyclegan.evaluation.extractors import Extractor
from cyclegan.evaluation.features import Pictures
from cyclegan.evaluation.paired import mae, psnr, ssim
from cyclegan.evaluation.statistics import EvaluationError
from cyclegan.inference.gallery import Block, write_gallery
from cyclegan.losses.structure import WINDOW, luminance
from cyclegan.whole_files import write_whole

WRITTEN = ".written.json"
SCORES = "scores.json"
NOTED = {"images", "table", "truths", "distances"}  # of a direction in that file: what the gallery tells of it
SHOWN = 200  # rows a direction in the gallery; all pictures are translated and scored
PAIRED = {"MAE": mae, "PSNR": psnr, "SSIM": ssim}


@whole_float32()
def translate_split(
    run: Path | str,
    split: str = "test",
    direction: str = "both",
    device: torch.device | str = "cpu",
    batch_size: int = 8,
    metrics: Sequence[str] = (),
    extractor: Extractor | None = None,
    paired: bool | None = None,
) -> dict[str, dict]:
    """Translate a whole split and write pictures, scores.json and index.html below results/<run>/<split>/.

    Args:
        run: the run's folder
        split: "test" or "train"
        direction: "AtoB", "BtoA" or "both"
        device: for the generators
        batch_size: pictures of one size that go through a generator together
        metrics: distances to the target domain's pictures, by name as in `evaluate`: "fid", "kid" …
        extractor: whose features they take; needed with metrics
        paired: whether pictures of the same name are counterparts; None: if their names can't agree by chance

    Where distances fail, all the rest is written before the error is raised. A direction that an earlier call
    translated keeps its scores while its pictures are there.

    Returns a dict by direction: "images" (how many), "folder", "scores" ({"MAE": {"untouched": x, "translated": y},
    …}: where counterparts are known MAE in [-1, 1], PSNR in dB, SSIM; the errors of `cyclegan.evaluation.cycle`, where
    there is a way back and a target domain; and the distances), "table" (the same as lines of cells), "truths" (a
    sentence on counterparts), "distances" (their extractor, protocol, layer, weights, numbers of pictures, warnings).
    Raises SplitError, CounterpartError, ImageError, GeneratorFileError.
    """
    if metrics:
        check_metrics(metrics)
    run = Path(run)
    config = config_of(run)
    out = run / split
    out.mkdir(parents=True, exist_ok=True)
    results, blocks, side, problems, written = {}, [], 0, [], {}
    for way in directions_of(config, run, split, direction, device, paired):
        files = [path.relative_to(out).as_posix() for path in way.outputs().values()]
        _forget(out, way.name, files)
        written[way.name] = files
        scores, block, side = _translate(way, batch_size, device)
        if errors := identity_errors(way, batch_size, device):
            scores["identity_error"] = {"untouched": 0.0, "translated": fmean(errors)}
        about = None
        try:
            if metrics:
                distances, about = _distances(way, metrics, extractor, scores)
                scores |= distances
        except EvaluationError as error:
            problems.append(f"{way.name}: {error}")
        block.table, block.note = score_table(scores), " ".join([_note(way), *about_distances(about)])
        blocks.append(block)
        results[way.name] = {"images": len(way.files), "folder": str(way.out), "scores": scores}
        results[way.name] |= {"table": block.table, "truths": way.about_truths, "distances": about}
        seen = way.generator.about.get("images")
    subtitle = "" if seen is None else f"after {seen} training images"
    written = _told(out / WRITTEN) | written
    kept = _kept(out, written, results)
    blocks += [Block(name, [], result["table"], _note_of_kept(name, result)) for name, result in kept.items()]
    blocks.sort(key=lambda block: block.title)
    write_gallery(out / "index.html", f"{config.name}: {split} split", subtitle, blocks, side)
    write_whole(out / SCORES, json.dumps(finite(kept | results), indent=1))
    write_whole(out / WRITTEN, json.dumps(written))
    if problems:
        raise EvaluationError(f"{'; '.join(problems)} (the other scores and the gallery are in {out})")
    return results


def _told(path: Path) -> dict[str, Any]:
    """What earlier calls wrote there, by direction; nothing if they did not, or it is damaged."""
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return told if isinstance(told, dict) else {}


def _forget(out: Path, name: str, files: Sequence[str]) -> None:
    """Remove what earlier calls wrote of a direction and what would not be true of the files that it now gets."""
    stale = set(_told(out / WRITTEN).get(name, [])) - set(files)  # nothing else is ours to remove
    for path in (*stale, f"{name}.card.json"):
        (out / path).unlink(missing_ok=True)
    known = _told(out / SCORES)
    if known.pop(name, None) is not None:
        write_whole(out / SCORES, json.dumps(known, indent=1))


def _kept(out: Path, written: dict[str, list[str]], results: dict[str, dict]) -> dict[str, dict]:
    """What earlier calls found for directions that this one left alone; of others there is a warning."""
    kept = {}
    for name, result in _told(out / SCORES).items():
        if name in results:
            continue
        complete = isinstance(result, dict) and result.keys() >= NOTED
        if complete and name in written and all((out / path).is_file() for path in written[name]):
            kept[name] = result
        else:
            reason = "not all of its pictures are there" if complete else "another version wrote them"
            tqdm.write(f"warning: {out / SCORES} loses the scores of {name}: {reason}")
    return kept


def score_table(scores: dict[str, dict[str, float]]) -> list[list[str]]:
    """Lines of cells: a heading, then a line a metric; nothing if there are no scores."""
    if not scores:
        return []
    lines = [["", "untouched", "translated", ""]]
    for metric, values in scores.items():
        higher = metric in ("PSNR", "SSIM") or higher_is_better(metric)
        better = "higher is better" if higher else "lower is better"
        lines.append([metric, f"{values['untouched']:.4g}", f"{values['translated']:.4g}", better])
    return lines


def about_distances(about: dict | None) -> list[str]:
    """Sentences on what the distances were taken with; none if there are none."""
    if about is None:
        return []
    return [
        f"Distances: extractor {about['extractor']}, protocol {about['protocol']}, layer {about['layer']}, weights "
        f"{about['weights_sha256'][:8]}; n_real = {about['n_real']}, n_fake = {about['n_fake']}, n_untouched = "
        f"{about['n_untouched']}.",
        *(f"Warning: {warning}." for warning in about["warnings"]),
    ]


def _translate(way: Direction, batch_size: int, device: torch.device | str) -> tuple[dict, Block, int]:
    columns = (
        ["input"]
        + ["style"] * bool(way.styles)
        + ["output"]
        + ["back again"] * bool(way.back)
        + ["truth"] * bool(way.truths)
    )
    block, shown = Block(way.name, columns), set(way.files[:: -(-len(way.files) // SHOWN)])
    values: dict[str, dict[str, list[Tensor]]] = {metric: {"untouched": [], "translated": []} for metric in PAIRED}
    outputs, cycle, side = way.outputs(), [], 0
    compared = 0
    with tqdm(total=len(way.files), desc=way.name, unit="img", leave=False) as bar:
        for paths, images in batches(way.files, way.read, batch_size):
            real = images.to(device)
            mask = masks_of(way.masks, paths, real)
            styles = way.styles_of(paths, real)
            exact = translation(way.generator, mask, real, styles)(real)
            if exact.isnan().any():  # which a file would show as black
                raise EvaluationError(f"{way.name} gives NaN for {paths[0]}: its weights are damaged, or too large")
            fakes = quantised(exact.cpu())  # scores are those of the files
            backs = translation(way.back, mask, real)(exact).cpu() if way.back else None
            cycle += change(images, backs).tolist() if way.back else []
            for i, path in enumerate(paths):
                _save(fakes[i], outputs[path])
                truth = _truth(way, path, images[i], fakes[i])
                if truth is not None:
                    compared += 1
                    _score(values, images[i], fakes[i], truth)
                if path in shown:
                    style = styles[i][0].cpu() if styles else None
                    row = [images[i], style, fakes[i], backs[i] if way.back else None, truth]
                    row = [to_picture(image) for image in row if image is not None]
                    block.add(path.relative_to(way.folder).as_posix(), row)
                side = max(side, *images.shape[2:])
            bar.update(len(paths))
    means = {
        metric: {kind: float(torch.stack(numbers).mean()) for kind, numbers in kinds.items()}
        for metric, kinds in values.items()
        if all(kinds.values())
    }
    if compared < len(way.truths):
        way.about_truths += f" Of these {len(way.truths)}, {len(way.truths) - compared} have another size: left out."
    if cycle:
        means["cycle_error"] = {"untouched": 0.0, "translated": fmean(cycle)}
    return means, block, side


def _truth(way: Direction, path: Path, image: Tensor, fake: Tensor) -> Tensor | None:
    if path not in way.truths:
        return None
    truth = way.read_target(way.truths[path])
    return truth if truth.shape == fake.shape and truth.shape[1:] == image.shape[1:] else None


def _score(values: dict, image: Tensor, fake: Tensor, truth: Tensor) -> None:
    if len(image) != len(truth):  # grey in one domain, colour in the other
        image = luminance(image[None])[0].expand_as(truth)
    for metric, function in PAIRED.items():
        if metric == "SSIM" and min(fake.shape[1:]) < WINDOW:
            continue
        values[metric]["translated"].append(function(fake[None], truth[None])[0])
        values[metric]["untouched"].append(function(image[None], truth[None])[0])


def _distances(way: Direction, metrics: Sequence[str], extractor: Extractor, errors: dict) -> tuple[dict, dict]:
    """Distances of both sides to the target domain, and with what they were taken.

    The translated side's card, with the errors, is written.
    """
    if not way.references.files:
        domain, run, split = way.name[-1], way.out.parents[1], way.out.parent.name
        raise EvaluationError(
            f"no pictures of {domain} to take {', '.join(metrics)} to; name their folder as data.{domain}.{split} in "
            f"{run / 'config.yaml'}"
        )
    real = side_of(way.references, extractor, metrics)
    before = evaluate(way.inputs, real, extractor, metrics)
    fakes = Pictures(sorted(way.outputs().values()), folder=way.out)
    after = evaluate(fakes, real, extractor, metrics, checkpoint=f"{way.out.resolve().parents[1].name}/{way.name}")
    scores = {
        name: {"untouched": before.numbers[name], "translated": after.numbers[name]}
        for name in after.numbers
        if name in before.numbers
    }
    after.numbers.update({name: values["translated"] for name, values in errors.items()})
    save_card(way.out.with_name(f"{way.name}.card.json"), after.card)
    about = {
        **extractor.identity(),
        "n_real": after.card["real"]["n"],
        "n_fake": after.card["fake"]["n"],
        "n_untouched": before.card["fake"]["n"],
        "warnings": list(dict.fromkeys([*after.warnings, *before.warnings])),
    }
    return scores, about


def _note(way: Direction) -> str:
    shown = f", {SHOWN} of them shown" if len(way.files) > SHOWN else ""
    return f"{len(way.files)} pictures{shown}; the files are in {way.out.name}/. {way.about_truths}"


def _note_of_kept(name: str, result: dict) -> str:
    sentences = [result["truths"], *about_distances(result["distances"])]
    return f"{result['images']} pictures of an earlier call; the files are in {name}/. {' '.join(sentences)}"


def _save(image: Tensor, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    to_picture(image).save(path)
