"""Squared distances between each frame embedding and those just before it: a band of the self-similarity matrix."""

from __future__ import annotations

import numpy as np

from fewframes.runtime.protocol import Floats


class RecentDistances:
    """The last embeddings of a video, and how far each new one is from them. Memory is constant."""

    def __init__(self, num_lags: int) -> None:
        """Prepare to compare each frame with itself and the `num_lags - 1` frames before it."""
        self._num_lags = num_lags
        self._held_ND = np.empty((0, 0), np.float32)
        self._origin_D: Floats | None = None
        self._last_D: Floats | None = None

    def push(self, embeddings_ND: Floats) -> Floats:
        """Add frames (n, D) and return their squared distances (n, L) to the frame `lag` frames before, at each lag.

        They are infinite where there is no such frame. A frame that could not be decoded (NaN) shows what the one before it did.
        """
        whole_ND = self._filled(embeddings_ND)
        if self._origin_D is None:
            self._origin_D = whole_ND[0].copy()
            self._held_ND = np.empty((0, whole_ND.shape[1]), np.float32)
        # Distances from an origin nearby keep their digits when they are multiplied out.
        near_ND = whole_ND - self._origin_D
        num_held = len(self._held_ND)
        all_MD = np.concatenate([self._held_ND, near_ND])
        squares_M = np.einsum("md,md->m", all_MD, all_MD)
        distances_NM = squares_M[num_held:, None] + squares_M[None] - 2 * (near_ND @ all_MD.T)
        lags_NL = np.full((len(near_ND), self._num_lags), np.inf, np.float32)
        for row, distances_M in enumerate(np.maximum(distances_NM, 0)):
            last = num_held + row
            num = min(self._num_lags, last + 1)
            lags_NL[row, :num] = distances_M[last - num + 1 : last + 1][::-1]
        lags_NL[:, 0] = 0
        self._held_ND = all_MD[max(0, len(all_MD) - self._num_lags + 1) :]
        return lags_NL

    def _filled(self, embeddings_ND: Floats) -> Floats:
        """Return the embeddings with the one before in place of each NaN; before the first good one, that one or zeros."""
        good_N = np.asarray(~np.isnan(embeddings_ND).any(axis=1))
        if not good_N.all():
            first_D = embeddings_ND[good_N.argmax()] if good_N.any() else np.zeros_like(embeddings_ND[0])
            before_D = first_D if self._last_D is None else self._last_D
            indices_N = np.maximum.accumulate(np.where(good_N, np.arange(len(good_N)), -1))
            embeddings_ND = np.where(indices_N[:, None] < 0, before_D, embeddings_ND[indices_N])
        self._last_D = embeddings_ND[-1]
        return embeddings_ND
