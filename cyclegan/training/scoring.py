"""Scores while training: test pictures through the generators, their distance to the other domain's, and the best."""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import partial
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from cyclegan.config import Config, ConfigError
from cyclegan.data.folders import find_folder, find_split
from cyclegan.data.images import to_bytes
from cyclegan.data.masks import find_masks
from cyclegan.data.transforms import PlainTransform
from cyclegan.evaluation.directions import readable, styles_in_turn
from cyclegan.evaluation.evaluator import check_counts, check_metrics, evaluate, higher_is_better, number_names, side_of
from cyclegan.evaluation.extractors import make_extractor
from cyclegan.evaluation.features import Pictures
from cyclegan.evaluation.ranks import on_first_rank
from cyclegan.evaluation.sides import pictures_of
from cyclegan.inference.translate import translate_tensor
from cyclegan.losses import within
from cyclegan.training.chronicle import evaluating
from cyclegan.training.journal import read_metrics
from cyclegan.whole_files import write_whole

LAST = 5  # scores whose mean is told beside the last and the best


class Scorer:
    """Scores generators on all processes, each with its share of the pictures.

    Args:
        config: the run, with `evaluation.every_epochs` set
        accelerator: for device and precision
        directions: of the generators that will be scored
    """

    def __init__(self, config: Config, accelerator: Accelerator, directions: Iterable[str]):
        self.config, self.accelerator = config, accelerator
        section = config.evaluation
        check_metrics(section.metrics)
        self.extractor = make_extractor(
            section.extractor, section.protocol, weights=section.inception_weights, device=accelerator.device
        )
        sources, references = (find_split(config.data, split) for split in ("test", section.reference))
        if not sources or not references:
            raise ConfigError("evaluation: there is no test split to score; set evaluation.every_epochs=null")
        self.directions = [way for way in directions if way[0] in sources and way[-1] in references]
        if not self.directions:
            raise ConfigError(
                f"evaluation: no direction to score with test pictures of {', '.join(sources)} and {section.reference} "
                f"pictures of {', '.join(references)} only; set evaluation.every_epochs=null or evaluation.reference"
            )
        names = number_names(section.metrics, self.extractor)
        scores = [f"metrics/{direction}/{name}" for direction in self.directions for name in names]
        if section.best_by and section.best_by not in scores:
            raise ConfigError(f"evaluation.best_by: no score {section.best_by!r}; choices: {', '.join(scores)}")
        self.masks = {domain: find_masks(config.data, domain, paths, "test") for domain, paths in sources.items()}
        self.sources = self._readable(sources, self.masks)
        references = self.sources if section.reference == "test" else self._readable(references, {})
        pairs = [(Pictures(self.sources[way[0]]), way[-1]) for way in self.directions]
        for source, target in pairs:
            check_counts(source, Pictures(references[target]), section.metrics)
        self.references = {
            domain: side_of(
                pictures_of(config.data, domain, files, find_folder(config.data, section.reference, domain)),
                self.extractor,
                section.metrics,
            )
            for domain, files in references.items()
        }
        for source, target in pairs:  # what they need of it is known now
            check_counts(source, self.references[target], section.metrics)

    def _readable(self, files: dict[str, list[Path]], masks: dict[str, dict]) -> dict[str, list[Path]]:
        data = self.config.data
        return on_first_rank(lambda: {d: readable(data, d, paths, masks.get(d, {})) for d, paths in files.items()})

    def score(self, generators: dict[str, nn.Module], images: int) -> tuple[dict[str, float], dict[str, dict]]:
        """Numbers by "metrics/<direction>/<metric>", and their protocol cards by direction."""
        scores, cards = {}, {}
        with evaluating(generators):
            for direction in self.directions:
                generator, (source, target) = generators[direction], direction.split("to")
                styles = styles_in_turn(generator, self.sources[source], self.sources.get(target, []))
                read = partial(self._translated, generator, direction, styles)
                result = evaluate(
                    Pictures(self.sources[source], read=read),
                    self.references[target],
                    self.extractor,
                    self.config.evaluation.metrics,
                    checkpoint=f"{self.config.name}/{direction} after {images} images",
                )
                scores |= {f"metrics/{direction}/{name}": value for name, value in result.numbers.items()}
                cards[direction] = result.card
        return scores, cards

    @torch.no_grad()
    def _translated(self, generator: nn.Module, direction: str, styles: dict[Path, Path], path: Path) -> Tensor:
        source, target = (PlainTransform(self.config.data, domain) for domain in direction.split("to"))
        dtype = next(generator.parameters()).dtype
        image, mask = (
            None if x is None else x[None].to(self.accelerator.device, dtype)
            for x in source.with_mask(path, self.masks[direction[0]].get(path))
        )
        style = [target(styles[path])[None].to(image)] if path in styles else []
        with self.accelerator.autocast():  # the generator's alone: features are always float32
            fake = translate_tensor(generator, image, *style)
        return to_bytes(within(mask, fake, image))[0].cpu().expand(3, -1, -1)


def summary(metrics: Path) -> list[str]:
    """A line a score of log/metrics.jsonl: the last, the best and when, the mean of the last few."""
    values: dict[str, list[tuple[float, int]]] = {}
    for line in read_metrics(metrics):
        for name, value in line.items():
            if name.startswith("metrics/"):
                values.setdefault(name, []).append((value, line["images"]))
    lines = []
    for name, found in values.items():
        best, when = min(found, key=lambda pair: rank_of(name, pair[0]))
        last = [value for value, _ in found[-LAST:]]
        lines.append(
            f"{name}: last {last[-1]:.5g}, best {best:.5g} after {when} images, "
            f"mean of the last {len(last)} {sum(last) / len(last):.5g}"
        )
    return lines


def rank_of(name: str, value: float) -> float:
    """Smaller for better."""
    return -value if higher_is_better(name.rpartition("/")[2]) else value


def write_scores(state: Path, scores: dict[str, float]) -> None:
    """Beside a state that was saved before it was scored."""
    write_whole(state / "scores.json", json.dumps(scores))


def was_scored(state: Path) -> bool:
    return (state / "scores.json").exists()


def best_states(states: list[Path], by: str | None, keep: int) -> set[Path]:
    """The `keep` states with the best score `by` (None: the first one they have), of those that were scored."""
    scored = []
    for state in states:
        try:
            scores = json.loads((state / "scores.json").read_text())
        except (OSError, ValueError):  # not scored, or damaged
            continue
        name = by or next(iter(scores), None)
        if name in scores:
            scored.append((rank_of(name, scores[name]), state))
    return {state for _, state in sorted(scored)[:keep]}
