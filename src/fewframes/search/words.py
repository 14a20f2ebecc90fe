"""Ask an index in words: the vector of a text, if the index has vectors of an image-text encoder."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fewframes.errors import ConfigError, FewframesError, WeightsError
from fewframes.models.files.formats import format_of
from fewframes.models.files.model_file import read_header, read_model_file
from fewframes.models.files.names import find_model
from fewframes.runtime.keys import model_key
from fewframes.search.rows import weights_key
from fewframes.search.table import IndexSettings, SearchQuery

if TYPE_CHECKING:
    from fewframes.models.words.image_text import ImageText

_ADD_WORDS = (
    "make an index with words beside its vectors: fewframes index VIDEOS --index OTHER --words ENCODER (such as "
    "clip:PE-Core-B-16/meta, or a folder); what is in the cache is not embedded again"
)


def text_query(encoder: ImageText, column: str, text: str, not_text: str = "") -> SearchQuery:
    """Return a query for windows that show what a text says. Raises ConfigError if there are no words.

    Args:
        encoder: The image-text encoder.
        column: The column of vectors that are its own.
        text: The text, with several phrasings as labels have them: `PHRASE|PHRASE`.
        not_text: A text, in the same form: windows that are more like it are left out. Empty for none.
    """
    from fewframes.models.words.model import text_vectors  # late: it loads torch
    from fewframes.models.words.phrases import word_labels

    if not text.strip():
        raise ConfigError("text: no words; say what to find, such as 'two people shake hands'")
    vector_D = text_vectors(encoder, word_labels([text]))[0]
    rival_D = text_vectors(encoder, word_labels([not_text]))[0] if not_text.strip() else None
    return SearchQuery(vector_D, column=column, part="text", rival=rival_D)


def model_knows_words(settings: IndexSettings) -> bool:
    """Return True if the model of an index can be found, and its frame encoder is the image half of an image-text model."""
    try:
        header = None if format_of(settings.model) is not None else read_header(find_model(settings.model))
    except FewframesError:
        return False
    return header is not None and bool(header.get("config", {}).get("tower"))


def encoder_of_model(
    url: str, settings: IndexSettings, model: str | None = None, encoder: str | None = None
) -> ImageText:
    """Return the image-text encoder whose image half is the frame encoder of an index's own model.

    Args:
        url: The index, for errors.
        settings: Its settings.
        model: The model file of the index, if it has been moved.
        encoder: The name or folder of the image-text encoder, if it has been moved.

    Raises:
        ConfigError: the model has no image-text encoder, or the vectors of the index are no means of frame embeddings.
        WeightsError: the model or the encoder cannot be found or read, or are others than those of the index.
    """
    from fewframes.models.words.files import encoder_of  # late: it loads torch

    name = model or settings.model
    if format_of(name) is not None:
        raise ConfigError(f"{url}: was made with an exported graph ({name}), which knows no words; {_ADD_WORDS}")
    file = read_model_file(find_model(name))
    if weights_key(model_key(file.tensors), file.view, settings.merge or 0) != settings.model_key:
        raise WeightsError(
            f"{url}: was made with the model {settings.model!r}, and {name} has other weights; name that model"
        )
    if file.config.tower is None:
        raise ConfigError(
            f"{url}: was made with {name}, whose frame encoder ({file.config.encoder}) knows no words; {_ADD_WORDS}"
        )
    if settings.embedding == "both" or (settings.embedding == "video" and file.config.temporal != "mean"):
        raise ConfigError(
            f"{url}: its vectors ({settings.embedding}, temporal encoder {file.config.temporal!r}) are no means of frames, with "
            f"which words can be compared; make an index with --embedding frames, or {_ADD_WORDS.removeprefix('make ')}"
        )
    return encoder_of(file, name, encoder)
