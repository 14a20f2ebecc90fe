"""Export of a model as a page for the browser: its two halves as ONNX graphs, their description, and the files of the page.

The page (web_page/) runs them with onnxruntime-web, which is not part of this package: `npm install` in the folder completes it.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from fewframes.core.files import filled, writing
from fewframes.errors import ConfigError
from fewframes.export.exporter import Export, export
from fewframes.inference.predictor import Predictor
from fewframes.results import Clip
from fewframes.runtime.graphs import LEAST_FRAMES, GraphPart, Precision, open_graph

PAGE = Path(__file__).parent / "web_page"
"""The files of the page, which are copied as they are."""
MODEL_FILE = "model.json"
"""The description of the model: its labels, view, number of frames, and the files of its graphs."""
GRAPHS: dict[GraphPart, str] = {"frames": "model.frames.onnx", "time": "model.time.onnx"}
"""The file of each half."""
WEB_FORMAT = 1
"""The version of `MODEL_FILE`."""


def export_page(
    predictor: Predictor,
    folder: Path,
    *,
    precision: Precision = "float32",
    calibrate: Sequence[Clip] = (),
    check: Sequence[Clip] = (),
) -> Export:
    """Write a page that labels videos in the browser with this model, as a folder for any static server.

    The graphs are compared with the model before anything is kept. Other files in the folder stay, such as `node_modules`.

    Args:
        predictor: the model, in float32 on the CPU.
        folder: the folder to write to.
        precision: the precision of the frame encoder.
        calibrate: videos that int8 is calibrated with.
        check: videos that the graphs are compared with the model on, as for `export`.

    Raises:
        ExportError: the graphs disagree with the model.
        ConfigError: the model cannot be cut into the two halves that the page runs.
        OutputError: the folder cannot be written to.
        MissingDependency: a package that makes or runs ONNX is not installed.
    """
    check_halves(predictor)
    page_files = sorted(path.name for path in PAGE.iterdir())
    with writing(folder), filled(folder, (*page_files, MODEL_FILE, *GRAPHS.values())) as part:
        done = export(predictor, part / "model.onnx", precision=precision, calibrate=calibrate, check=check)
        (part / "model.onnx").unlink()  # the page runs the halves, so that each frame of a camera is encoded once
        (part / MODEL_FILE).write_text(_description(part / GRAPHS["frames"]), encoding="utf-8")
        for name in page_files:
            shutil.copyfile(PAGE / name, part / name)
        files = {str(folder / path.name): path.stat().st_size for path in sorted(part.iterdir())}
    return Export(files, done.agreement, done.checked_on)


def check_halves(predictor: Predictor) -> None:
    """Raise ConfigError if the model mixes frames inside its encoder, so that it has no halves for the page to run."""
    layout = predictor.torch.checkpoint.model.config.layout
    if layout != "factorised":
        raise ConfigError(
            f"{predictor.name}: its layout {layout!r} mixes frames inside the encoder, but the page encodes frame by frame; "
            "take a model with the layout 'factorised', or another format"
        )


def _description(frames_path: Path) -> str:
    """Return the text of `MODEL_FILE`, made from the card of the frame encoder's graph."""
    card = asdict(open_graph(frames_path).card)
    del card["part"], card["any_num_frames"]
    values = {"format": WEB_FORMAT, **card, "least_frames": LEAST_FRAMES, "graphs": GRAPHS}
    return json.dumps(values, ensure_ascii=False, indent=1) + "\n"
