"""Training state on the disk: complete or absent, never half.

results/<run>/state/<images>/ holds shared.pt (what all processes have in common), rank<r>.pt (what is a process's own:
random states, image pools, running means) and manifest.json with the size and SHA-256 of each. The folder is written
under another name, flushed to the disk and then renamed, so a crash at any moment leaves the states before it intact.
Accelerate's own save_state keeps rank 0's objects only and unpickles what it loads; here all is read weights_only.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator

from cyclegan.errors import UserError

FORMAT = 1


class CheckpointError(UserError, ValueError):
    """A training state that cannot be used; the message names the folder and the reason."""


def state_of(states: Path, images: int) -> Path:
    """The folder of the state after so many images."""
    return states / f"{images:09d}"


def write_state(states: Path, images: int, shared: dict, own: dict, about: dict, accelerator: Accelerator) -> Path:
    """Write one training state; every process calls this, with the same `shared` and its own `own`.

    Raises OSError on every process (a full disk, say) if one of them could not write; nothing is left behind then.
    """
    final, temporary = state_of(states, images), states / f".writing-{images:09d}"
    problem = None
    try:
        if accelerator.is_main_process:
            for unfinished in states.glob(".writing-*"):
                shutil.rmtree(unfinished, ignore_errors=True)
            temporary.mkdir(parents=True)
    except OSError as error:
        problem = error
    _agree(problem, temporary, accelerator)
    try:
        _write(temporary / f"rank{accelerator.process_index}.pt", own)
        if accelerator.is_main_process:
            _write(temporary / "shared.pt", shared)
    except (OSError, RuntimeError) as error:  # torch.save turns a full disk into a RuntimeError
        problem = error
    _agree(problem, temporary, accelerator)
    try:
        if accelerator.is_main_process:
            _seal(temporary, final, {**about, "images": images, "processes": accelerator.num_processes})
    except OSError as error:
        problem = error
    _agree(problem, temporary, accelerator)
    return final


def _agree(problem: Exception | None, temporary: Path, accelerator: Accelerator) -> None:
    """Go on only if all processes can."""
    failed = torch.tensor(int(problem is not None), device=accelerator.device)
    if accelerator.reduce(failed, reduction="sum").item():
        if accelerator.is_main_process:
            shutil.rmtree(temporary, ignore_errors=True)
        raise OSError(f"{temporary}: {problem or 'another process could not write its part'}")


def _write(path: Path, state: dict) -> None:
    with path.open("wb") as file:
        try:
            torch.save(state, file)
        except RuntimeError as error:  # of a full disk it says where in the file it was
            raise error.__context__ if isinstance(error.__context__, OSError) else error from None
        file.flush()
        os.fsync(file.fileno())


def _seal(temporary: Path, final: Path, about: dict) -> None:
    files = {path.name: _fingerprint(path) for path in sorted(temporary.glob("*.pt"))}
    missing = {f"rank{rank}.pt" for rank in range(about["processes"])} - set(files)
    if missing:
        raise OSError(f"no {', '.join(sorted(missing))}: all machines must share the results folder")
    manifest = temporary / "manifest.json"
    with manifest.open("w") as file:
        json.dump({"format": FORMAT, **about, "files": files}, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    _flush_folder(temporary)
    replaced = final.with_name(f".writing-replaced-{final.name}")
    if final.exists():  # the same place reached again
        final.rename(replaced)
    temporary.rename(final)
    _flush_folder(final.parent)
    shutil.rmtree(replaced, ignore_errors=True)


def _flush_folder(folder: Path) -> None:
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _fingerprint(path: Path) -> dict[str, Any]:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return {"bytes": path.stat().st_size, "sha256": digest.hexdigest()}


def all_states(states: Path) -> list[Path]:
    """Finished states, oldest first."""
    return sorted(path for path in states.glob("*") if path.name.isdigit())


def damage(state: Path) -> str | None:
    """What is wrong with a state, None if it is intact."""
    try:
        manifest = json.loads((state / "manifest.json").read_text())
        if manifest["format"] != FORMAT:
            return f"written in format {manifest['format']}, this version reads {FORMAT}"
        for name, expected in manifest["files"].items():
            if _fingerprint(state / name) != expected:
                return f"{name} is not what was written"
    except FileNotFoundError as error:
        return f"{Path(error.filename).name} is missing"
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"{type(error).__name__}: {error}"
    return None


def find_state(states: Path, wanted: str, say: Callable[[str], None]) -> Path | None:
    """The newest intact state of `states` ("auto"; None if there is none), or of a run's or a state's folder.

    Damaged ones are passed over, and `say` is told. Raises CheckpointError if only damaged ones are left, lest hours
    of training be started over unasked, or if `wanted` names a folder without any.
    """
    candidates = all_states(states)
    if wanted != "auto":
        folder = Path(wanted)
        is_state = (folder / "manifest.json").exists()
        candidates = [folder] if is_state else all_states(folder / "state") or all_states(folder)
        if not candidates:
            raise CheckpointError(f"--resume: no training state in {folder}")
    problems = []
    for state in reversed(candidates):
        problem = damage(state)
        if problem is None:
            return state
        problems.append(f"{state}: {problem}")
        say(f"warning: {state} is damaged ({problem})")
    if problems:
        raise CheckpointError(f"no intact training state: {problems[0]}; --resume none starts afresh")
    return None


def read_manifest(state: Path) -> dict[str, Any]:
    return json.loads((state / "manifest.json").read_text())


def read_state(state: Path) -> tuple[dict, list[dict]]:
    """The shared part, and the parts of all processes that wrote it, in the order of their ranks."""
    processes = read_manifest(state)["processes"]
    load = {"map_location": "cpu", "weights_only": True}
    owns = [torch.load(state / f"rank{i}.pt", **load) for i in range(processes)]
    return torch.load(state / "shared.pt", **load), owns


def is_among(states: Path, state: Path) -> bool:
    """Whether the state is of the run whose states lie there, and not another's."""
    return state.parent.resolve() == states.resolve()


def abandon_newer(states: Path, state: Path) -> None:
    """After going back to `state`: later ones of the run keep their files, but are no longer gone on from.

    `state` may be another run's: then so may one of as many images.
    """
    own = is_among(states, state)
    for other in reversed(all_states(states)):  # the newest first: killed in between, no later one is left
        if other.name > state.name or (other.name == state.name and not own):
            target = other.with_name(f"{other.name}.abandoned")
            shutil.rmtree(target, ignore_errors=True)
            other.rename(target)


def dealt_out(owns: list[dict], name: str, rank: int, world: int) -> dict[str, Any]:
    """The state of an image pool for one of `world` processes, from those of as many as wrote it."""
    images = [image for own in owns for image in own["memory"][name]["_extra_state"]]
    return {"_extra_state": images[rank::world]}


def changes(saved: dict[str, Any], current: dict[str, Any], prefix: str = "") -> list[str]:
    """What differs between two configurations, a line a key."""
    lines = []
    for key in {**saved, **current}:
        before, after = saved.get(key), current.get(key)
        if isinstance(before, dict) and isinstance(after, dict):
            lines += changes(before, after, f"{prefix}{key}.")
        elif before != after:
            lines.append(f"{prefix}{key}: {before} -> {after}")
    return lines


def drop_old_states(states: Path, keep: int, best: set[Path] = frozenset()) -> None:
    """Delete all but the newest `keep` and the `best`."""
    for state in all_states(states)[:-keep]:
        if state not in best:
            shutil.rmtree(state, ignore_errors=True)


def make_room(states: Path, keep: int, best: set[Path] = frozenset()) -> bool:
    """Whether a full disk has more room now, by states that the next one would make superfluous; the newest stays."""
    there = all_states(states)
    if not there or shutil.disk_usage(states).free > sum(file.stat().st_size for file in there[-1].iterdir()):
        return False
    drop_old_states(states, max(1, keep - 1), best)
    return len(all_states(states)) < len(there)


def check_writable(states: Path) -> None:
    """Raises CheckpointError where no state could be written: now, not at the end of the first hours."""
    probe = states / ".probe"
    try:
        states.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise CheckpointError(
            f"{states} cannot be written to ({error.strerror}), so no training state could be saved; let this user "
            "write there, or name another folder as results"
        ) from None


def random_states() -> dict[str, Any]:
    """The state of every random number generator of this process, in types that weights_only loading accepts.

    Of GPUs, the one that it trains on: how many others can be seen may change.
    """
    kind, keys, *rest = np.random.get_state()
    return {
        "python": random.getstate(),
        "numpy": [kind, torch.from_numpy(keys.astype(np.int64)), *rest],
        "torch": torch.get_rng_state(),
        "cuda": [torch.cuda.get_rng_state()] if torch.cuda.is_available() else [],
    }


def restore_random_states(states: dict[str, Any]) -> None:
    random.setstate(states["python"])
    kind, keys, *rest = states["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(states["torch"])
    own = states["cuda"]  # earlier versions kept those of all GPUs
    place = torch.cuda.current_device() if len(own) > 1 else 0
    if torch.cuda.is_available() and place < len(own):
        torch.cuda.set_rng_state(own[place])
