"""The training doctor: recognises over windows what goes wrong most often, and says it in one sentence each.

It is fed what the run writes anyway: lines of curves, and the pictures of a sample sheet. symptoms.py has the checks;
a Doctor remembers windows and what it has said. docs/reading-the-curves.md has a chapter for each remark.
"""

from __future__ import annotations

import json
from statistics import fmean, median
from typing import Any

from torch import Tensor

from cyclegan.algorithms import complete_config
from cyclegan.config import Config
from cyclegan.training.remarks import Remark
from cyclegan.training.symptoms import (
    PINNED,
    brightness_correlation,
    contrast_share,
    grows_without_bound,
    has_won,
    jumps,
    variety,
)

PAGE = "docs/reading-the-curves.md"

# Curves: losses of one pair say nothing, so lines are averaged into bins of many updates and judged by medians of bins.
BIN_UPDATES = 50
WINDOW = 20  # bins: 1000 updates, about an epoch of the published sets
SHORT = 5  # bins, for what happens fast
FLOOR = 1.0  # a lowest level below this counts as this: a total near 0 may double without harm
STARVED = 0.3  # share of the time spent waiting; below it more workers hardly show

# Pictures: medians over the sheet, so that one odd picture decides nothing; several sheets in a row.
SETTLED_UPDATES = 1000  # an untrained generator gives grey for everything, or anything
COPYING_IMAGES = 10_000  # with the global skip a generator starts as the identity and leaves it slowly
COPYING_SHARE, COPYING_SHEETS = 0.05, 3  # change relative to contrast; 0.25 and more in runs that learn
INVERTED, INVERTED_SHEETS = -0.3, 2  # correlation of brightness; above 0.75 in runs that learn
COLLAPSED_SHARE, COLLAPSED_SHEETS = 0.1, 2  # variety relative to that of the inputs; above 0.45 in runs that learn

SPOILED = ("diverging", "inverted", "collapsed")  # the weights are bad; the others are cured by settings
QUIET = 5  # looks in a row without it before a remark may be made again: no flapping about a threshold


class Doctor:
    """Watches one run, on the main process.

    Args:
        adversarial: the kind of adversarial loss, as in `algorithm.adversarial`; None leaves that curve alone
        decay_starts: epochs after which the learning rate begins to fall; None if it does not fall from one point on
    """

    def __init__(self, adversarial: str | None = None, decay_starts: int | None = None):
        self.adversarial, self.decay_starts = adversarial, decay_starts
        self.lines: list[dict[str, float]] = []  # of the bin that is being filled
        self.bins: list[dict[str, float]] = []
        self.bin_began = 0
        self.lowest: dict[str, float] = {}
        self.complaints: dict[str, dict[str, int]] = {}
        self.sound = {"curves": 0}  # images up to which the weights were certainly good, by what was looked at
        self.warming_up = True  # not part of the state: a resumed run has to start its loader workers, too

    def read(self, images: int, updates: int, values: dict[str, float]) -> list[Remark]:
        """Take one line of curves: means since the line before, by the journal's names; "epoch" with its part."""
        self.lines.append({**values, "images": images})
        if updates - self.bin_began < BIN_UPDATES:
            return []
        self._close_bin(updates)
        remarks = [
            *self._remarks_on_growth(images),
            *self._remarks_on_saturation(images),
            *self._remarks_on_decay(images),
            *self._remarks_on_waiting(images),
        ]
        if not self._complains_of("diverging"):  # of a median; what began within its window may not show yet
            self.sound["curves"] = self.bins[-SHORT - 1]["images"] if len(self.bins) > SHORT else 0
        return remarks

    def sound_until(self) -> int:
        """Images up to which neither curves nor pictures gave reason to doubt the weights."""
        return min(self.sound.values())

    def look(self, images: int, updates: int, pictures: dict[str, tuple[Tensor, Tensor]]) -> list[Remark]:
        """Take a sheet: by direction, the validation pictures and their translations, (N, C, H, W) in [-1, 1]."""
        remarks = [
            remark
            for direction, (real, fake) in pictures.items()
            if updates >= SETTLED_UPDATES  # before it nothing is judged: a remark that is not said would count as said
            for remark in self._remarks_on_pictures(images, direction, real, fake)
        ]
        if not self._complains_of("inverted", "collapsed"):
            self.sound["pictures"] = images
        return remarks

    def _complains_of(self, *kinds: str) -> bool:
        return any(key.split()[0] in kinds and told["seen"] for key, told in self.complaints.items())

    def _close_bin(self, updates: int) -> None:
        names = dict.fromkeys(name for line in self.lines for name in line)
        means = {name: fmean(line[name] for line in self.lines if name in line) for name in names}
        if self.warming_up:
            means.pop("speed/waiting_for_data", None)
        last = self.lines[-1]
        self.bins = [*self.bins, {**means, **{name: last[name] for name in ("images", "epoch")}}][-WINDOW:]
        self.lines, self.bin_began, self.warming_up = [], updates, False

    def _remarks_on_growth(self, images: int) -> list[Remark]:
        remarks = []
        for name in self._totals():
            levels = self._curve(name)[-SHORT:]
            if len(levels) < SHORT:
                continue
            level = median(levels)
            self.lowest[name] = lowest = max(FLOOR, min(level, self.lowest.get(name, level)))
            remarks += self._judge(
                images,
                "diverging",
                name,
                grows_without_bound(level, lowest),
                f"the loss of the {name} is {level:.3g}, {level / lowest:.0f} times its lowest level; people go back "
                "to an earlier state, lower optimizer.lr and set training.clip=1",
            )
        return remarks

    def _totals(self) -> list[str]:
        """The optimizers' losses; with Wasserstein scores, which have no bounds, only the critic's."""
        totals = [name for name in self.bins[-1] if "/" not in name and name not in ("images", "epoch", "step")]
        return [name for name in totals if name == "discriminators" or self.adversarial not in ("wgan", "wgan-gp")]

    def _remarks_on_saturation(self, images: int) -> list[Remark]:
        remarks = []
        for domain in ("A", "B"):
            critic = self._curve(f"discriminators/{domain}")
            adversarial = self._curve(f"generators/adversarial_{domain}")
            if min(len(critic), len(adversarial)) < WINDOW or self.adversarial not in PINNED:
                continue
            critic, adversarial = median(critic), median(adversarial)
            remarks += self._judge(
                images,
                "saturated",
                domain,
                has_won(critic, adversarial, self.adversarial),
                f"D_{domain} has won: over {WINDOW * BIN_UPDATES} updates its loss is {critic:.3g} and the generator's "
                f"adversarial loss {adversarial:.3g}; people lower optimizer.groups.discriminators.lr, set "
                "discriminator.spectral=true, or add pictures and augmentation",
            )
        return remarks

    def _remarks_on_decay(self, images: int) -> list[Remark]:
        if self.decay_starts is None:
            return []
        remarks = []
        for name in self._totals():
            bins = [line for line in self.bins if name in line and "epoch" in line]  # states once had none
            before = [line[name] for line in bins if line["epoch"] <= self.decay_starts]
            after = [line[name] for line in bins if line["epoch"] > self.decay_starts]
            if len(before) < 2 * SHORT or len(after) < SHORT:
                continue
            remarks += self._judge(
                images,
                "decay-jump",
                name,
                jumps(before, after),
                f"the loss of the {name} went from {median(before):.3g} to {median(after):.3g} where the learning rate "
                "begins to fall; people look whether the lr curves fall smoothly, and train longer on the full rate",
            )
        return remarks

    def _remarks_on_waiting(self, images: int) -> list[Remark]:
        waiting = self._curve("speed/waiting_for_data")
        share = median(waiting) if len(waiting) >= WINDOW - 1 else 0.0
        return self._judge(
            images,
            "starving",
            "",
            share > STARVED,
            f"the device waits for pictures {share:.0%} of the time; people raise data.workers, or store the pictures "
            "at data.load_size",
        )

    def _remarks_on_pictures(self, images: int, direction: str, real: Tensor, fake: Tensor) -> list[Remark]:
        change, correlation, share = contrast_share(real, fake), brightness_correlation(real, fake), variety(real, fake)
        return [
            *self._judge(
                images,
                "copying",
                direction,
                change < COPYING_SHARE and images >= COPYING_IMAGES,
                f"{direction} copies its input: it changes {change:.1%} of a picture's contrast; people lower "
                "algorithm.identity, then algorithm.cycle, unless the task needs no more than that",
                COPYING_SHEETS,
            ),
            *self._judge(
                images,
                "inverted",
                direction,
                correlation < INVERTED,
                f"{direction} turns light into dark: brightness of inputs and outputs correlates by {correlation:.2f}; "
                "people start again with another seed, init.gain=0.01 and identity loss (algorithm.identity=5)",
                INVERTED_SHEETS,
            ),
            *self._judge(
                images,
                "collapsed",
                direction,
                share < COLLAPSED_SHARE,
                f"{direction} gives almost the same picture for different inputs: they vary {share:.1%} as much as the "
                "inputs; people go back to an earlier state, lower optimizer.lr and add pictures or augmentation",
                COLLAPSED_SHEETS,
            ),
        ]

    def _judge(self, images: int, kind: str, where: str, seen: bool, sentence: str, looks: int = 1) -> list[Remark]:
        """The remark, once it was seen at so many looks in a row; no second time before it went away."""
        key = f"{kind} {where}"
        complaint = self.complaints.setdefault(key, {"since": images, "seen": 0, "unseen": 0, "said": 0})
        if not seen:
            complaint["seen"], complaint["unseen"] = 0, complaint["unseen"] + 1
            if not complaint["said"] or complaint["unseen"] >= QUIET:
                del self.complaints[key]
            return []
        complaint["seen"], complaint["unseen"] = complaint["seen"] + 1, 0
        if complaint["said"] or complaint["seen"] < looks:
            return []
        complaint["said"] = 1
        return [Remark(images, kind, f"{sentence} ({PAGE}#{kind})", complaint["since"])]

    def _curve(self, name: str) -> list[float]:
        return [line[name] for line in self.bins if name in line]

    def state_dict(self) -> dict[str, Any]:
        names = ("lines", "bins", "bin_began", "lowest", "complaints", "sound")
        return {name: json.loads(json.dumps(vars(self)[name])) for name in names}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        vars(self).update(json.loads(json.dumps(state)))


def new_doctor(config: Config) -> Doctor:
    """The doctor of a run."""
    training = config.training
    decays = config.schedule.name == "linear" and training.epochs and training.decay_epochs
    adversarial = complete_config(config).algorithm.get("adversarial")
    return Doctor(adversarial, training.epochs if decays else None)
