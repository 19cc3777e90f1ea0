"""How one batch changes the weights: networks, optimizers and averages of a run, and the state that they have."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from cyclegan.algorithms import Parts, build_algorithm, parts_of
from cyclegan.config import Config, ConfigError
from cyclegan.devices import least_winograd_places
from cyclegan.heap import give_back_freed_memory
from cyclegan.inference.checkpoints.initial import Start, init_from
from cyclegan.networks.diffaugment import adaptive
from cyclegan.networks.winograd import LEAST_CHANNELS, use_winograd
from cyclegan.training import checkpoint
from cyclegan.training.compiling import GRAPHS, compile_training, keep_gradients
from cyclegan.training.ema import Ema
from cyclegan.training.journal import Means
from cyclegan.training.optimizers import check_groups, new_optimizer
from cyclegan.training.terms import Content


def seed_everything(number: int) -> None:
    """Of python, numpy and torch; numpy takes 32 bits, to which rollbacks, images and ranks may have added."""
    set_seed(number % 2**32)


class Trainer:
    """The algorithm of a run on its device.

    Args:
        config: the run
        accelerator: for device, processes, precision and accumulation
    """

    def __init__(self, config: Config, accelerator: Accelerator):
        self.config, self.accelerator = config, accelerator
        self.steps, self.means = 0, Means()
        self.shapes: list[torch.Size] = []  # of the last batch
        seed_everything(config.seed)
        self.dtype = torch.float64 if config.speed.precision == "fp64" else torch.float32
        self.layout = torch.channels_last if config.speed.channels_last else torch.contiguous_format
        self.algorithm = build_algorithm(config).to(accelerator.device, self.dtype, memory_format=self.layout)
        if config.speed.winograd:
            changed = use_winograd(self.algorithm, least_winograd_places(accelerator.device))
            if not changed and config.speed.choice == "plain":
                raise ConfigError(
                    f"speed.winograd: no network here has 3x3 convolutions of {LEAST_CHANNELS} channels; leave it out"
                )
        self.networks = self._trained_networks()
        self.generators = self.algorithm.generators()
        for generator in self.generators.values():
            generator.checkpointing = config.speed.checkpointing
        self.content = Content(config.terms, accelerator, self.dtype)
        self.ema = Ema(self.generators, config.training.ema) if config.training.ema else None
        found = {name: adaptive(network) for name, network in self.networks.items()}
        self.adaptive = {name: augmentation for name, augmentation in found.items() if augmentation}
        self._prepare_networks()
        self.parameters = {
            name: [parameter for network in networks for parameter in network.parameters()]
            for name, networks in self.algorithm.trained().items()
        }
        if config.speed.compile_mode in GRAPHS:
            keep_gradients(chain(*self.parameters.values()))
        self.directions = {
            name: [d for d, network in self.generators.items() if any(next(network.parameters()) is p for p in own)]
            for name, own in self.parameters.items()
        }
        check_groups(config.optimizer, self.parameters)
        self.optimizers = {
            name: accelerator.prepare(new_optimizer(config.optimizer, name, parameters))
            for name, parameters in self.parameters.items()
        }
        if accelerator.scaler and config.training.accumulate > 1:
            for optimizer in self.optimizers.values():
                optimizer.scaler = _OneScale(accelerator.scaler)
        self.base_rates = {
            name: [group["lr"] * self._rate_scale() for group in optimizer.param_groups]
            for name, optimizer in self.optimizers.items()
        }
        seed_everything(config.seed + 1 + accelerator.process_index)  # dropout and pools differ between processes

    def _trained_networks(self) -> dict[str, nn.Module]:
        """The networks that an optimizer updates, by the name of their attribute."""
        trained = {id(network) for networks in self.algorithm.trained().values() for network in networks}
        networks = {name: child for name, child in self.algorithm.named_children() if id(child) in trained}
        if len(networks) != len(trained):
            raise TypeError("trained() must name networks that are attributes of the algorithm")
        return networks

    def start_from(self, source: Path | dict[str, Path]) -> list[Start]:
        """Take other weights for a start; tells, network by network, what became of them."""
        starts = init_from(self.networks, source, direction=next(iter(self.generators)))
        if self.ema:
            for direction, average in self.ema.generators().items():
                average.load_state_dict(self.generators[direction].state_dict())
        return starts

    def _prepare_networks(self) -> None:
        """Wrap each trained network by itself and put it back as the same attribute."""
        if self.config.speed.compile:
            torch.compiler.reset()  # another run of this process may have left none of the few places for graphs
        for name, network in self.networks.items():
            if self.config.speed.compile:
                compile_training(network, self.config.speed.compile_mode, self.config.data.one_size)
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="`broadcast_buffers`", category=FutureWarning)  # torch 2.15
                setattr(self.algorithm, name, self.accelerator.prepare_model(network))

    def _rate_scale(self) -> float:
        training = self.config.training
        pairs = training.batch_size * self.accelerator.num_processes * training.accumulate
        return {"none": 1.0, "linear": float(pairs), "sqrt": pairs**0.5}[self.config.optimizer.scale_lr]

    def shown(self) -> dict[str, nn.Module]:
        """The generators to show, score and export: their averages where those are kept."""
        return self.ema.generators() if self.ema else self.generators

    def update(self, batch: dict[str, Tensor], rate: float) -> dict[str, Tensor]:
        """All updates that the algorithm wants from one batch, at `rate` times the configured learning rate.

        Returns the losses, with the sum of an optimizer's terms under its name; their means are kept as well.
        """
        batch = {name: value.to(dtype=self.dtype, memory_format=self.layout) for name, value in batch.items()}
        losses: dict[str, Tensor] = {}
        if (shapes := [value.shape for value in batch.values()]) != self.shapes:
            self.shapes = shapes
            give_back_freed_memory()
        if self.config.speed.compile_mode in GRAPHS:
            # They may write over what the last batch computed; left to guess, over what this one has not used up yet.
            torch.compiler.cudagraph_mark_step_begin()
        self._await_gradients(self.parameters, True)
        with self.accelerator.accumulate(*(getattr(self.algorithm, name) for name in self.networks)):
            for name, terms in self.algorithm.losses(batch):
                if name in losses and self.config.training.accumulate > 1:
                    raise ConfigError(f"training.accumulate: not with several updates of {name} for one batch")
                with_content = self.content.terms and name not in losses
                noted = self._backward(name, parts_of(terms), batch if with_content else None)
                self._step(name, rate)
                if self.config.training.accumulate > 1:
                    self._await_gradients([name], False)
                self.means.add(noted)
                losses |= noted
        if self.accelerator.sync_gradients:
            self.steps += 1
            if self.accelerator.scaler and self.config.training.accumulate > 1:
                self.accelerator.scaler.update()
            for augmentation in self.adaptive.values():
                augmentation.adapt(self.accelerator.reduce(augmentation.heard))
            if self.ema:
                self.ema.update(self.generators)
        return losses

    def _backward(self, optimizer: str, parts: Parts, batch: dict[str, Tensor] | None) -> dict[str, Tensor]:
        """Add the gradients of all parts; the loss and its terms, detached. With a batch, content terms count too."""
        terms: dict[str, Tensor] = {}
        done: set[str] = set()
        for part in parts:
            of_part = part()
            if batch is not None:
                of_part = {**of_part, **self._content_terms(optimizer, batch, done)}
            self.accelerator.backward(sum(of_part.values()), inputs=self.parameters[optimizer])
            terms |= {name: value.detach() for name, value in of_part.items()}
            del of_part  # and with it what is left of its graph
        if batch is not None and self.directions[optimizer] and not done:
            raise ConfigError(f"terms: {self.config.algorithm['name']} does not tell its translations; leave them out")
        return {optimizer: sum(terms.values()), **{f"{optimizer}/{name}": value for name, value in terms.items()}}

    def _content_terms(self, optimizer: str, batch: dict[str, Tensor], done: set[str]) -> dict[str, Tensor]:
        """Of the translations by the generators that this optimizer trains, but for those done; notes them as done."""
        terms = {}
        for source, target in (direction.split("to") for direction in self.directions[optimizer]):
            if target not in done and (fake := batch.get(f"fake_{target}")) is not None:
                done.add(target)
                content = self.content(batch[source], fake)
                terms |= {f"{name}_{target}": value for name, value in content.items()}
        return terms

    def _await_gradients(self, optimizers: Iterable[str], awaited: bool) -> None:
        """Whether what passes through these optimizers' networks tells the other processes to expect gradients.

        It should not once they are updated: a discriminator that then judges for the generator would wait for its own,
        take those of the next batch, which are only to be accumulated, and average them twice.
        """
        trained = self.algorithm.trained()
        for network in (network for name in optimizers for network in trained[name]):
            if isinstance(network, DistributedDataParallel):
                network.require_backward_grad_sync = awaited

    def _step(self, name: str, rate: float) -> None:
        optimizer = self.optimizers[name]
        for group, base in zip(optimizer.param_groups, self.base_rates[name], strict=True):
            group["lr"] = base * rate
        if self.config.training.clip and self.accelerator.sync_gradients:
            self.accelerator.unscale_gradients(optimizer)
            torch.nn.utils.clip_grad_norm_(self.parameters[name], self.config.training.clip)
        optimizer.step()
        optimizer.zero_grad()

    def rates(self) -> dict[str, float]:
        """The learning rates of the last update."""
        return {f"lr/{name}": optimizer.param_groups[0]["lr"] for name, optimizer in self.optimizers.items()}

    def strengths(self) -> dict[str, float]:
        """Of adaptive augmentation, by discriminator."""
        return {f"diffaugment/{name}": augmentation.p.item() for name, augmentation in self.adaptive.items()}

    def not_finite(self) -> list[str]:
        """Networks with weights that are infinite or not a number."""
        return [
            name
            for name, network in self.networks.items()
            if not all(parameter.isfinite().all() for parameter in network.parameters())
        ]

    # ---- state

    def shared_state(self) -> dict[str, Any]:
        """What all processes have in common."""
        scaler = self.accelerator.scaler
        return {
            "algorithm": dict(self.algorithm.named_buffers(recurse=False)),  # counters, say
            "networks": {name: network.state_dict() for name, network in self.networks.items()},
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
            "scaler": scaler.state_dict() if scaler else {},
            "ema": self.ema.state_dict() if self.ema else {},
            "steps": self.steps,
        }

    def load_shared_state(self, state: dict[str, Any]) -> None:
        """Raises RuntimeError, ValueError or KeyError, as torch does, where names or shapes do not fit."""
        for name, buffer in self.algorithm.named_buffers(recurse=False):
            buffer.copy_(state.get("algorithm", {}).get(name, buffer))
        for name, network in self.networks.items():
            network.load_state_dict(_with_augmentation_of(network, state["networks"][name]))
        for name, optimizer in self.optimizers.items():
            saved = state["optimizers"][name]
            groups = [
                {**group, "params": old["params"]}
                for group, old in zip(optimizer.param_groups, saved["param_groups"], strict=True)
            ]  # momenta come back, betas and weight decay are what the run says now
            optimizer.load_state_dict({**saved, "param_groups": groups})
            _begin_momenta(optimizer)
            _lay_out(optimizer)
        if self.accelerator.scaler and state["scaler"]:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        if self.ema and state["ema"]:
            self.ema.load_state_dict(state["ema"])
        elif self.ema:
            self.ema.update(self.generators)  # averaging was off before: start from the weights as they are
        self.steps = state["steps"]

    def own_state(self) -> dict[str, Any]:
        """What differs from process to process: random states, pools and running means."""
        return {
            "random": checkpoint.random_states(),
            "memory": {name: child.state_dict() for name, child in self._memories().items()},
            "means": self.means.state_dict(),
        }

    def load_own_states(self, owns: list[dict[str, Any]], images: int) -> bool:
        """Take up what the processes that saved had of their own; False if there were more or fewer of them.

        Then image pools are dealt out anew, and random states (from the seed and `images`) and means start afresh.
        """
        rank, world = self.accelerator.process_index, self.accelerator.num_processes
        same = len(owns) == world
        for name, child in self._memories().items():
            own = owns[rank]["memory"][name] if same else checkpoint.dealt_out(owns, name, rank, world)
            child.load_state_dict(own)
        if same:
            self.means.load_state_dict(owns[rank]["means"], self.accelerator.device)
            checkpoint.restore_random_states(owns[rank]["random"])
        else:
            seed_everything(self.config.seed + images + rank)
        return same

    def _memories(self) -> dict[str, nn.Module]:
        """Children of the algorithm that remember something but have no weights: image pools."""
        return {
            name: child
            for name, child in self.algorithm.named_children()
            if name not in self.networks and child.state_dict()
        }


class _OneScale:
    """A gradient scaler whose scale stays while the batches of one update are added up.

    Each of accelerate's optimizers sets a new one once it has stepped; the next optimizer's gradients of earlier
    batches would then count by the wrong one.
    """

    def __init__(self, scaler: torch.amp.GradScaler):
        self.step = scaler.step

    def update(self) -> None:
        """Not yet: `Trainer.update` does it."""


def _begin_momenta(optimizer: torch.optim.Optimizer) -> None:
    """From zero where momentum was off before: RMSprop makes them at its first step only."""
    for group in optimizer.param_groups:
        for parameter in group["params"] if group.get("momentum") else ():
            state = optimizer.state.get(parameter, {})
            if "square_avg" in state:
                state.setdefault("momentum_buffer", torch.zeros_like(parameter))


def _lay_out(optimizer: torch.optim.Optimizer) -> None:
    """Momenta as their weights lie in memory: fused optimizers go through both side by side, whatever their strides."""
    for parameter, state in optimizer.state.items():
        for name, value in state.items():
            if value.shape == parameter.shape:
                state[name] = torch.empty_like(parameter).copy_(value)


def _with_augmentation_of(network: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A saved state, where augmentation was made adaptive or fixed since: its strength starts as configured now."""
    own = network.state_dict()
    kept = {key: value for key, value in state.items() if key in own or not key.startswith("diffaugment.")}
    return {key: value for key, value in own.items() if key.startswith("diffaugment.")} | kept
