"""Labelled videos: read from folders and lists, checked, split. Imports `video` and `core`; trains and evaluates nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fewframes.core.lazy import lazy

if TYPE_CHECKING:
    from fewframes.data.config import DataConfig as DataConfig
    from fewframes.data.dataset import VideoSet as VideoSet
    from fewframes.data.dataset import read_data as read_data

__getattr__, __dir__ = lazy("fewframes.data", {"read_data": "dataset", "DataConfig": "config", "VideoSet": "dataset"})
