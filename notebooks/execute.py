"""Run the notebooks from top to bottom and write their outputs back, as they are committed.

    python notebooks/execute.py                     all of them, about four minutes on two cores
    python notebooks/execute.py 02_reading_a_front  one

What a cell writes to stderr (progress, warnings of other packages) is left out, execution times too, and pictures are
brought to few colours: a notebook that gives the same results gives the same file but for the seconds that it tells.
"""

from __future__ import annotations

import base64
import io
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from PIL import Image

FOLDER = Path(__file__).resolve().parent
COLOURS = 64  # of a picture; nobody sees the difference, and it takes a third of the bytes


def execute(path: Path) -> None:
    """Run one notebook in place; nothing is written where a cell fails."""
    notebook = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory(prefix="nb-", ignore_cleanup_errors=True) as scratch:
        os.environ["TMPDIR"] = scratch  # short, for the names of Ray's sockets
        NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(FOLDER)}}).execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = [_tidy(output) for output in cell.outputs if output.get("name") != "stderr"]
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    nbformat.write(notebook, path)


def _tidy(output: Any) -> Any:
    picture = output.get("data", {}).get("image/png")
    if picture is not None:
        with Image.open(io.BytesIO(base64.b64decode(picture))) as image:
            few = image.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
        stream = io.BytesIO()
        few.save(stream, "PNG", optimize=True)
        output["data"]["image/png"] = base64.b64encode(stream.getvalue()).decode()
    return output


def main(names: Sequence[str]) -> None:
    """Run the notebooks of these names, or all."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(FOLDER.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    for path in sorted(FOLDER.glob("*.ipynb")):
        if not names or path.stem in names:
            print(path.name, flush=True)
            execute(path)


if __name__ == "__main__":
    main(sys.argv[1:])
