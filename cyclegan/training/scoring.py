"""Scores while training: test pictures through the generators, their distance to the other domain's, and the best."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from cyclegan.config import Config, ConfigError
from cyclegan.data.folders import find_split
from cyclegan.data.transforms import PlainTransform
from cyclegan.evaluation.card import save_card
from cyclegan.evaluation.evaluator import check_metrics, evaluate, side_of
from cyclegan.evaluation.extractors import inception, make_extractor
from cyclegan.evaluation.features import Pictures, to_bytes
from cyclegan.inference.translate import translate_tensor
from cyclegan.training import checkpoint
from cyclegan.training.chronicle import evaluating
from cyclegan.training.journal import read_metrics

LAST = 5  # scores whose mean is told beside the last and the best


class Scorer:
    """Scores generators on all processes, each with its share of the pictures.

    Args:
        config: the run, with `evaluation.every_epochs` set
        accelerator: for device and precision
    """

    def __init__(self, config: Config, accelerator: Accelerator):
        self.config, self.accelerator = config, accelerator
        section = config.evaluation
        check_metrics(section.metrics)
        if section.extractor == "inception":
            self.extractor = inception(section.protocol, weights=section.inception_weights, device=accelerator.device)
        else:
            self.extractor = make_extractor(section.extractor, device=accelerator.device)
        self.sources = find_split(config.data, "test")
        references = find_split(config.data, section.reference)
        if not self.sources or not references:
            raise ConfigError("evaluation: there is no test split to score; set evaluation.every_epochs=null")
        self.references = {
            domain: side_of(files, self.extractor, section.metrics) for domain, files in references.items()
        }

    def score(self, generators: dict[str, nn.Module], images: int) -> dict[str, float]:
        """Numbers by "metrics/<direction>/<metric>"; their cards go to log/cards/."""
        scores = {}
        with self.accelerator.autocast(), evaluating(generators):
            for direction, generator in generators.items():
                source, target = direction.split("to")
                if source not in self.sources or target not in self.references:
                    continue
                read = partial(_translated, generator, PlainTransform(self.config.data, source), self.accelerator)
                result = evaluate(
                    Pictures(self.sources[source], read=read),
                    self.references[target],
                    self.extractor,
                    self.config.evaluation.metrics,
                    checkpoint=f"{self.config.name}/{direction} after {images} images",
                )
                scores |= {f"metrics/{direction}/{name}": value for name, value in result.numbers.items()}
                if self.accelerator.is_main_process:
                    cards = self.config.folder / "log" / "cards"
                    cards.mkdir(parents=True, exist_ok=True)
                    save_card(cards / f"{images:09d}_{direction}.json", result.card)
        best_by = self.config.evaluation.best_by
        if best_by and best_by not in scores:
            raise ConfigError(f"evaluation.best_by: no score {best_by!r}; choices: {', '.join(scores)}")
        return scores


@torch.no_grad()
def _translated(generator: nn.Module, transform: PlainTransform, accelerator: Accelerator, path: Path) -> Tensor:
    dtype = next(generator.parameters()).dtype
    image = transform(path)[None].to(accelerator.device, dtype)
    pixels = to_bytes(translate_tensor(generator, image))[0].cpu()
    return pixels.expand(3, -1, -1)


def summary(metrics: Path) -> list[str]:
    """A line a score of log/metrics.jsonl: the last, the best and when, the mean of the last few."""
    values: dict[str, list[tuple[float, int]]] = {}
    for line in read_metrics(metrics):
        for name, value in line.items():
            if name.startswith("metrics/"):
                values.setdefault(name, []).append((value, line["images"]))
    return [
        f"{name}: last {found[-1][0]:.5g}, best {min(found)[0]:.5g} after {min(found)[1]} images, "
        f"mean of the last {len(found[-LAST:])} {sum(value for value, _ in found[-LAST:]) / len(found[-LAST:]):.5g}"
        for name, found in values.items()
    ]


def best_states(states: list[Path], by: str | None, keep: int) -> set[Path]:
    """The `keep` states with the lowest score `by` (None: the first one they have), of those that were scored."""
    scored = []
    for state in states:
        scores = checkpoint.read_manifest(state).get("scores")
        if scores:
            scored.append((scores[by or next(iter(scores))], state))
    return {state for _, state in sorted(scored)[:keep]}
