"""TensorBoard: scalars per candidate, its search file as text, and an entry under HPARAMS per candidate.

The only place that imports tensorboardX and tensorboard. Look with:  tensorboard --logdir runs/mine/tensorboard
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from evomerge.reports.trackers._values import MARKER, MOST_TRIALS, LoggedStep, Resumed, RunInfo, RunResult

TRIALS = "candidates"  # folder of the entries under HPARAMS, a run of TensorBoard each


class TensorBoardLog:
    """Event files in a folder of the run's own: `destination`/<run's name>, or tensorboard/ in the run folder."""

    def __init__(self, destination: str = "") -> None:
        self._destination = destination
        self._last = -1

    def begin(self, info: RunInfo) -> Resumed:
        """Open a new event file beside those of earlier sessions; what these hold of a broken step is taken back."""
        from tensorboardX import SummaryWriter

        folder = Path(self._destination) / info.name if self._destination else info.folder / "tensorboard"
        self._folder = folder
        first = _written(folder) + 1 if folder.is_dir() else 0
        new = first == 0
        # readers drop steps from `purge_step` on in older files: a step that was written in part
        # two sessions may begin within one second, which is all that the name of an event file tells
        self._writer = SummaryWriter(str(folder), purge_step=first, filename_suffix=f".{first:07d}")
        if new:
            rows = "".join(f"| {key} | {str(value).replace('|', '/')} |\n" for key, value in info.config.items())
            self._writer.add_text("search/settings", f"| setting | value |\n| --- | --- |\n{rows}", 0)
            indented = "".join(f"    {line}\n" for line in info.search_file.splitlines())
            self._writer.add_text("search/file", indented, 0)
            self._writer.flush()
        self._last = first - 1
        return Resumed(first, str(folder))

    def log(self, steps: Sequence[LoggedStep]) -> None:
        """Write a scalar per metric and step, and the candidates with their genes."""
        for step in steps:
            for key, value in step.metrics.items():  # the marker is the last of them
                self._writer.add_scalar(key, value, step.number, walltime=step.time)
            name = f"{TRIALS}/{step.number}"
            if step.scores and step.number < MOST_TRIALS and not (self._folder / name).exists():
                self._writer.add_hparams(dict(step.genes), step.scores, name=name, global_step=step.number)
            self._last = step.number
        self._writer.flush()

    def end(self, ending: RunResult) -> None:
        """Write the final results at the last step, and close."""
        last = max(self._last, 0)
        for key, value in ending.metrics.items():
            self._writer.add_scalar(key, value, last, walltime=ending.time)
        indented = "".join(f"    {line}\n" for line in ending.text.splitlines())
        self._writer.add_text(f"search/{ending.state}", indented, last, walltime=ending.time)
        self._writer.close()


def _written(folder: Path) -> int:
    """Return the last whole step in a folder's event files, by TensorBoard's own reader; -1 for none."""
    from tensorboard.backend.event_processing.event_accumulator import SCALARS, EventAccumulator

    found = EventAccumulator(str(folder), size_guidance={SCALARS: 1})  # the newest of each is all that is needed
    found.Reload()
    return int(found.Scalars(MARKER)[-1].step) if MARKER in found.Tags()["scalars"] else -1
