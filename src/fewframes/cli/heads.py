"""Several models in one command: `--model` given several times, or a folder of models."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import typer

from fewframes.cli.console import Results, describe
from fewframes.core.text import count_of
from fewframes.errors import ConfigError

if TYPE_CHECKING:
    from fewframes.cli.console import Shown
    from fewframes.inference.clips import BackendChoice
    from fewframes.inference.heads import Heads
    from fewframes.inference.predictor import Predictor
    from fewframes.inference.unknowns import UnknownChoice
    from fewframes.results import Prediction
    from fewframes.runtime.open import RuntimeName
    from fewframes.runtime.protocol import DtypeName


def names_of(models: list[str] | None) -> tuple[str, ...]:
    """Return the names of all models of `--model`, those of the models in a folder among them.

    Raises ConfigError for a frame encoder, which names no actions.
    """
    from fewframes.models.files.names import is_encoder_name, models_in
    from fewframes.runtime.open import DEFAULT_MODEL

    for name in filter(is_encoder_name, models or []):
        in_words = f"name them in words: --labels 'PHRASE; PHRASE' --encoder {name}; or " * name.startswith("clip:")
        raise ConfigError(
            f"--model {name}: a frame encoder alone names no actions; {in_words}train from it (fewframes train FOLDER --encoder "
            f"{name}), teach it (fewframes teach FOLDER --model {name}), or search with it (fewframes index --model {name})"
        )
    return tuple(name for given in models or [DEFAULT_MODEL] for name in models_in(given))


def check_alone(names: tuple[str, ...], options: dict[str, bool], reason: str) -> None:
    """Raise BadParameter if several models are given together with options that take one.

    Args:
        names: The models.
        options: The options by name, and whether each was given.
        reason: The reason why they take one model.
    """
    given = [option for option, is_given in options.items() if is_given]
    if len(names) > 1 and given:
        raise typer.BadParameter(
            f"{', '.join(given)} with {len(names)} models: {reason}; give one model, or leave that out"
        )


def open_models(
    names: tuple[str, ...],
    *,
    device: str,
    dtype: DtypeName,
    backend: BackendChoice,
    merge: int | None,
    runtime: RuntimeName,
    unknown: UnknownChoice,
) -> Predictor | Heads:
    """Load one model, or several that share a frame encoder. The arguments are those of `fewframes.load`."""
    if len(names) == 1:
        from fewframes.inference.predictor import load

        return load(
            names[0], device=device, dtype=dtype, backend=backend, merge=merge, runtime=runtime, unknown=unknown
        )
    from fewframes.inference.heads import load_heads

    return load_heads(names, device=device, dtype=dtype, backend=backend, merge=merge, runtime=runtime, unknown=unknown)


def predictors_of(models: Predictor | Heads) -> tuple[Predictor, ...]:
    """Return the predictor of each model."""
    from fewframes.inference.predictor import Predictor

    return (models,) if isinstance(models, Predictor) else models.predictors


def describe_all(models: Predictor | Heads) -> str:
    """Return one line that names the model, or counts the models, and says what computes them."""
    predictors = predictors_of(models)
    if len(predictors) == 1:
        return describe(predictors[0])
    num_labels, runtime = sum(len(predictor.labels) for predictor in predictors), models.runtime
    actions = f"{count_of(len(predictors), 'model')} in one pass: {count_of(num_labels, 'action')}"
    return f"{actions}, {runtime.kind} on {runtime.device} in {runtime.precision}"


def one_by_one(results: Iterable[Shown | tuple[Prediction, ...]]) -> Results:
    """Yield the predictions of several models for each video one after the other, and other results as they are."""
    for result in results:
        if isinstance(result, tuple):
            yield from result
        else:
            yield result


def of_first(shown: Sequence[Shown]) -> list[Shown]:
    """Return the results of the first model, and failures, so that each video is counted once."""
    names = [getattr(result, "model", "") for result in shown]
    first = next(filter(None, names), "")
    return [result for result, name in zip(shown, names, strict=True) if name in ("", first)]
