"""Open the image-text encoder of an index that has words beside the model's embeddings, and check that it is the same one."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from fewframes.core.cache import arrays_key, key_of
from fewframes.errors import WeightsError
from fewframes.inference.frame_features import encoder_key
from fewframes.inference.frame_sides import Beside
from fewframes.inference.predictor import Predictor
from fewframes.search.table import WordsColumn

if TYPE_CHECKING:
    from fewframes.models.words.image_text import ImageText

PRECISIONS = ("float32", "bfloat16", "float16")


def new_encoder(encoder: str) -> ImageText:
    """Open an image-text encoder by its name or folder. The errors are those of `open_image_text`."""
    from fewframes.models.words.image_text import open_image_text  # late: it loads torch

    return open_image_text(encoder)


def opened_encoder(url: str, words: WordsColumn, encoder: str | None = None) -> ImageText:
    """Open the image-text encoder that an index was made with.

    Args:
        url: The index, for errors.
        words: What the index says of it.
        encoder: Its name or folder, if it is not where it was.

    Raises:
        WeightsError: It cannot be found or read, or is another one.
        ConfigError: There is no encoder of that name.
        MissingDependency: open_clip is not installed.
    """
    from fewframes.models.words.files import known_encoder  # late: it loads torch

    found = known_encoder(words.encoder, words.weights, encoder)
    if column_of(found).key != words.key:
        raise WeightsError(
            f"{url}: its words are those of {words.encoder}, and {found.name} has other weights or sees frames in another way; "
            "name the encoder that the index was made with: --encoder NAME|FOLDER"
        )
    return found


def column_of(encoder: ImageText) -> WordsColumn:
    """Return what an index keeps of an image-text encoder."""
    weights = {key: tensor.numpy() for key, tensor in encoder.frame_encoder.state_dict().items()}
    floats = {key: array for key, array in weights.items() if array.dtype.kind == "f"}
    return WordsColumn(
        encoder.name, encoder.weights, key_of(arrays_key(floats), asdict(encoder.view)), encoder.frame_encoder.width
    )


def words_beside(encoder: ImageText, predictor: Predictor) -> Beside:
    """Return the image half of an image-text encoder as a second model, on the device and in the precision of the first."""
    from fewframes.models.words.model import frames_checkpoint  # late: it loads torch

    runtime = predictor.runtime
    beside = Predictor(
        frames_checkpoint(encoder),
        device=runtime.device if runtime.device.startswith(("cuda", "mps")) else "cpu",
        dtype=runtime.precision if runtime.precision in PRECISIONS else "float32",  # type: ignore[arg-type]
        backend=predictor.reader.backend,
        name=encoder.name,
    )
    return Beside(beside, encoder_key(beside))
