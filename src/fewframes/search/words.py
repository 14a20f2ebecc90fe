"""Ask an index in words: the vector of a text, if the index was made with an image-text encoder."""

from __future__ import annotations

from fewframes.errors import ConfigError, WeightsError
from fewframes.models.files.formats import format_of
from fewframes.models.files.model_file import read_model_file
from fewframes.models.files.names import find_model
from fewframes.runtime.keys import model_key
from fewframes.search.rows import weights_key
from fewframes.search.table import IndexSettings, SearchQuery


def text_query(
    url: str, settings: IndexSettings, text: str, model: str | None = None, encoder: str | None = None
) -> SearchQuery:
    """Return a query for windows that show what a text says.

    Args:
        url: The index, for errors.
        settings: Its settings.
        text: The text, with several phrasings as labels have them: `PHRASE|PHRASE`.
        model: The model file of the index, if it has been moved.
        encoder: The name or folder of the image-text encoder, if it has been moved.

    Raises:
        ConfigError: the index was not made with an image-text encoder, or its vectors are no means of frame embeddings.
        WeightsError: the model or the encoder cannot be found or read, or are others than those of the index.
    """
    name = model or settings.model
    from fewframes.models.words.files import encoder_of  # late: it loads torch
    from fewframes.models.words.model import text_vectors
    from fewframes.models.words.phrases import word_labels

    if not text.strip():
        raise ConfigError("text: no words; say what to find, such as 'two people shake hands'")
    labels = word_labels([text])
    if format_of(name) is not None:
        raise ConfigError(f"{url}: was made with an exported graph ({name}), which knows no words; {_ANOTHER}")
    file = read_model_file(find_model(name))
    if weights_key(model_key(file.tensors), file.view, settings.merge or 0) != settings.model_key:
        raise WeightsError(
            f"{url}: was made with the model {settings.model!r}, and {name} has other weights; name that model"
        )
    if file.config.tower is None:
        raise ConfigError(
            f"{url}: was made with {name}, whose frame encoder ({file.config.encoder}) knows no words; {_ANOTHER}"
        )
    if settings.embedding == "both" or (settings.embedding == "video" and file.config.temporal != "mean"):
        raise ConfigError(
            f"{url}: its vectors ({settings.embedding}, temporal encoder {file.config.temporal!r}) are no means of frames, with "
            "which words can be compared; make an index with --embedding frames"
        )
    return SearchQuery(text_vectors(encoder_of(file, name, encoder), labels)[0])


_ANOTHER = (
    "make an index with a model that does: fewframes words LABELS -o words.safetensors, and fewframes index VIDEOS --index OTHER "
    "--model words.safetensors"
)
