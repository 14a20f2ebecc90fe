"""Write a model's card (README.md) from the header of its file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from fewframes.core.text import count_of
from fewframes.models.files.model_file import ModelFile

LIBRARY = "fewframes"
"""The name of the library in a card, and the tag by which its models are known."""
TAGS = (LIBRARY, "video-classification", "action-recognition")
SHOWN_LABELS = 400
"""The most labels that a card lists by name."""
OPEN_LICENCE = "Apache-2.0"


def card_of(file: ModelFile, repository: str, *, num_bytes: int, licence: str = "", interval: str = "") -> str:
    """Return the card of a model: YAML that a hub reads, and a page for people.

    Args:
        file: The model, without what must not be published.
        repository: The name under which it is shared, OWNER/NAME.
        num_bytes: The size of its file.
        licence: The licence in the hub's words, such as `mit`; by default what the header tells.
        interval: The interval of the measured figure in words, if it is known.
    """
    parts = [
        _front_matter(file, licence),
        f"# {repository.rsplit('/', maxsplit=1)[-1]}",
        f"A model of fewframes that names {_actions(file)} in a video from {file.config.num_frames} of its frames.",
        _use(repository),
        _section("What it knows", _labels(file)),
        _section("How often it is right", _figures(file, interval)),
        _section("What it learned from", _data(file)),
        _section("Size", _size(file, num_bytes)),
        _section("Licences", "\n".join(f"- {name}: {text}" for name, text in file.licences.items()) or "None stated."),
        _section("Limits", _limits(file)),
    ]
    return "\n\n".join(parts) + "\n"


def _front_matter(file: ModelFile, licence: str) -> str:
    """Return the YAML at the top. JSON texts are YAML texts, so values are quoted as JSON."""
    is_open = bool(file.licences) and all(text.startswith(OPEN_LICENCE) for text in file.licences.values())
    lines = [
        "---",
        f"library_name: {LIBRARY}",
        "pipeline_tag: video-classification",
        f"license: {json.dumps(licence or (OPEN_LICENCE.lower() if is_open else 'other'))}",
        *([] if licence or is_open else ['license_name: "see the card"', 'license_link: "README.md"']),
        "tags:",
        *(f"- {tag}" for tag in TAGS),
        "---",
    ]
    return "\n".join(lines)


def _section(title: str, text: str) -> str:
    return f"## {title}\n\n{text}"


def _use(repository: str) -> str:
    name = repository.rsplit("/", maxsplit=1)[-1]
    return f"""## How to use it

```
pip install 'fewframes[hub]'
fewframes models pull {repository}
fewframes predict video.mp4 --model {repository}
```

```python
import fewframes

{name.replace("-", "_").replace(".", "_").lower() if name[:1].isalpha() else "model"} = fewframes.load("{repository}")
```"""


def _actions(file: ModelFile) -> str:
    words = count_of(len(file.labels), "action")
    return f"any of {words}" if file.config.task == "multilabel" else f"one of {words}"


def _labels(file: ModelFile) -> str:
    shown = ", ".join(f"`{_inline(label)}`" for label in file.labels[:SHOWN_LABELS])
    more = len(file.labels) - SHOWN_LABELS
    text = f"{shown} and {more} more." if more > 0 else f"{shown}."
    if file.rejection is None:
        return text
    return f"{text} Videos that seem to show none of them are answered `unknown`."


def _figures(file: ModelFile, interval: str) -> str:
    """Return the measurements: the protocol, the accuracy with its interval, that of each action, and all else as JSON."""
    metrics = dict(file.metrics)
    if not metrics:
        return "The file tells no measurement: no videos were held out, or none were measured."
    lines = []
    if "protocol" in metrics:
        lines.append(f"Protocol: {_inline(metrics.pop('protocol'))}.")
    top1 = metrics.get("top1")
    if isinstance(top1, float):
        lines.append(
            f"Right: {top1:.1%}{f' ({interval})' if interval else ''} of {metrics.get('num_videos', '?')} videos."
        )
    per_class = metrics.pop("per_class", None)
    if isinstance(per_class, Mapping) and all(isinstance(value, float) for value in per_class.values()):
        rows = [f"| {_inline(label)} | {value:.1%} |" for label, value in per_class.items()]
        lines.append("\n".join(["| action | right |", "|---|---|", *rows]))
    return "\n\n".join([*lines, f"All figures of the file:\n\n```json\n{_json(metrics)}\n```"])


def _data(file: ModelFile) -> str:
    """Return what is known of the training data."""
    facts = file.provenance
    counts = facts.get("num_videos")
    lines = [
        f"- data: {_inline(facts.get('data', 'not told'))}",
        *([f"- fingerprint: `{facts['data_fingerprint']}`"] if "data_fingerprint" in facts else []),
        *(
            [f"- videos: {', '.join(f'{value} {key}' for key, value in counts.items())}"]
            if isinstance(counts, Mapping)
            else []
        ),
    ]
    earlier = facts.get("started_from")
    if isinstance(earlier, Mapping):
        kept = ", ".join(earlier.get("kept", [])) or "nothing"
        lines.append(f"- started from: {_inline(earlier.get('model', '?'))}, of which it keeps: {kept}")
    return "\n".join(lines)


def _size(file: ModelFile, num_bytes: int) -> str:
    count = sum(array.size for array in file.tensors.values() if array.dtype.kind == "f")
    return (
        f"{count:,} parameters in {num_bytes / 1e6:.1f} MB; frames of {file.view.crop_px} x {file.view.crop_px} pixels; frame "
        f"encoder `{file.config.encoder}`, temporal encoder `{file.config.temporal}`."
    )


def _limits(file: ModelFile) -> str:
    looks = f"It looks at {file.config.num_frames} frames, so what lasts less than the time between two of them may be missed."
    return (
        f"{looks} The figures above are of the videos named there: other cameras and places are usually harder. Measure it on your "
        "own clips: `fewframes evaluate`."
    )


def _inline(text: object) -> str:
    """Return a text for one line of Markdown."""
    return " ".join(str(text).split()).replace("|", "\\|").replace("`", "'")


def _json(values: Mapping[str, Any]) -> str:
    return json.dumps(values, indent=1, ensure_ascii=False).replace("```", "'''")
