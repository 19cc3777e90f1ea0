"""What a run leaves on the disk as it trains: its states, its generators, and which of the states stay."""

from __future__ import annotations

from pathlib import Path

from cyclegan.evaluation.ranks import on_first_rank
from cyclegan.training import checkpoint
from cyclegan.training.rollback import sound_state
from cyclegan.training.run_folder import save_generators
from cyclegan.training.scoring import best_states, write_scores
from cyclegan.training.state import RunState


class Saving:
    """Writes what there is of a run, and deletes what it supersedes.

    Args:
        state: of the run, with its config and its processes
    """

    def __init__(self, state: RunState):
        self.state, self.config, self.accelerator = state, state.config, state.accelerator
        self.states = self.config.folder / "state"

    def save(self) -> OSError | None:
        """A training state, and the generators as files of their own; every process calls this.

        Returns what kept one of them from being written, as a full disk; states from before are then still there.
        """
        problem = self._write_state()
        if problem and on_first_rank(lambda: checkpoint.make_room(self.states, *self._kept())):
            problem = self._write_state()
        try:
            if self.accelerator.is_main_process:
                shown, images = self.state.trainer.shown(), self.state.progress.images
                save_generators(self.config, shown, images)  # for which there may be room
                if not (problem or self.state.score_due):  # else once it is known whether this is one of the best
                    self._drop_old_states()
        except OSError as error:
            problem = problem or error
        return problem

    def saved(self) -> bool:
        """Whether there is a state of where the run is."""
        return self._state_here().exists()

    def add_scores(self, scores: dict[str, float]) -> None:
        """To the state of where the run is, if there is one; on the first process. Raises OSError."""
        if not self.saved():
            return
        try:
            write_scores(self._state_here(), scores)
        finally:
            self._drop_old_states()

    def sound(self, until: int) -> int:
        """Images of the newest state whose weights are sound, `until` so many images; 0 for the start of the run."""
        return sound_state(until, [int(state.name) for state in checkpoint.all_states(self.states)])

    def _state_here(self) -> Path:
        return checkpoint.state_of(self.states, self.state.progress.images)

    def _write_state(self) -> OSError | None:
        try:
            self.state.write(self.states)
        except OSError as error:
            return error

    def _drop_old_states(self) -> None:
        checkpoint.drop_old_states(self.states, *self._kept())

    def _kept(self) -> tuple[int, set[Path]]:
        """How many of the newest states stay, and which besides."""
        saving = self.config.saving
        kept = best_states(checkpoint.all_states(self.states), self.config.evaluation.best_by, saving.keep_best)
        if self.config.training.rollbacks:
            kept = kept | {checkpoint.state_of(self.states, self.sound(self.state.doctor.sound_until()))}
        return saving.keep_last, kept
