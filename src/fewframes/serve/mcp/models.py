"""Find the model that a tool asks for: those the server was started with, and those that were taught since."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

from fewframes.errors import ConfigError, nearest
from fewframes.inference.predictor import Predictor
from fewframes.models.files.model_file import MODEL_FILE, read_model_file
from fewframes.serve.answers import VideoAnswerer
from fewframes.serve.batcher import BatchingRuntime
from fewframes.serve.config import ServeConfig
from fewframes.serve.service import Service

MOST_LOADED = 4
"""The most taught models that are kept in memory; of more, the one that was loaded first is loaded again when it is asked for."""
Stamp = tuple[int, int]


class ServedModels:
    """The models of a server. A taught one is loaded when it is first asked for, and again when it has changed."""

    def __init__(
        self, service: Service, config: ServeConfig, taught: Path | None, load: Callable[[str], Predictor]
    ) -> None:
        """Take the service, the folder of taught models (None: there are none), and the function that loads one."""
        self._service, self._config, self._taught, self._load = service, config, taught, load
        self._loaded: dict[str, tuple[Stamp, VideoAnswerer]] = {}
        self._lock = threading.Lock()

    @property
    def taught_names(self) -> list[str]:
        """Return the names of the taught models."""
        if self._taught is None:
            return []
        return sorted(path.parent.name for path in self._taught.glob(f"*/{MODEL_FILE}"))

    def is_served(self, name: str) -> bool:
        """Return True if the server was started with a model of this name."""
        return name in self._service.models

    def answerer(self, name: str | None) -> tuple[VideoAnswerer, str | None]:
        """Return what answers for a model, and the name by which to ask it. Raises ConfigError for an unknown model."""
        if name is None or self.is_served(name):
            return self._service.answerer, name
        return self._loaded_model(name), None

    def labels(self) -> dict[str, tuple[str, ...]]:
        """Return the labels of each model by its name, those of taught models included. Raises WeightsError for a damaged one."""
        taught = {name: read_model_file(self._file(name)).labels for name in self.taught_names}
        return {**taught, **self._service.models}

    def _file(self, name: str) -> Path:
        assert self._taught is not None
        return self._taught / name / MODEL_FILE

    def _loaded_model(self, name: str) -> VideoAnswerer:
        """Return what answers for a taught model as it is on the disk now."""
        known = self.taught_names
        if name not in known:
            raise ConfigError(f"no model {name!r}; {nearest(name, [*self._service.models, *known])}")
        file = self._file(name)
        with self._lock:
            found = file.stat()
            stamp = (found.st_mtime_ns, found.st_size)
            if name not in self._loaded or self._loaded[name][0] != stamp:
                predictor = self._load(str(file.parent))
                answerer = VideoAnswerer(predictor, BatchingRuntime(predictor.runtime), self._config)
                self._loaded.pop(name, None)
                self._loaded[name] = (stamp, answerer)
                if len(self._loaded) > MOST_LOADED:
                    del self._loaded[next(iter(self._loaded))]
            return self._loaded[name][1]
