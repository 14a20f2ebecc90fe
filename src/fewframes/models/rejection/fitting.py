"""Fit the rejection of a model to the frame embeddings of its training videos.

Each action is left out in turn, and its videos are the unknown ones, beside the background if there is any. All evidence is that of
models that never saw a video's own group. So is the evidence from which the thresholds are taken, and there no action is left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from fewframes.models.rejection.evidence import (
    Bools,
    JudgedMoments,
    JudgedVideos,
)
from fewframes.models.rejection.logistic import logistic
from fewframes.models.rejection.rejection import (
    EVIDENCE,
    KEPT,
    SHARES,
    Array,
    Floats,
    Rejection,
    known_of,
)

MOST_VIDEOS, MOST_BACKGROUND = 1000, 400
"""The most videos, and the most videos of background, that are learned from: as many of each action as possible."""
MOST_FOLDS, FEW_FOLDS, FEW_VIDEOS = 12, 5, 600
"""The most parts in which actions are left out, and the number of parts above so many videos. With more actions than parts, several
are left out together."""
LEAST_ACTIONS = 3
"""The fewest actions of which one can be left out, so that telling the others apart is still learned."""
USUAL = {"impure": 1.0, "together": 1.0, "answer": 0.5, "centre": 0.5, "neighbours": 0.5, "background": 1.0}
"""The coefficients of standardised evidence where nothing can be left out to fit them, and towards which others are drawn."""
STILL = 0.5
"""The fraction of the least change in a video of an action below which hardly anything moves."""


def fit_rejection(
    embeddings_BVTD: Floats,
    targets_BK: Floats,
    groups: Sequence[str],
    background_BVTD: Floats | None = None,
    background_groups: Sequence[str] | None = None,
) -> Rejection | None:
    """Fit the rejection to videos of known actions and, if there are any, to videos of background.

    Args:
        embeddings_BVTD: the frame embeddings of V views of each video. The first view is the video as it is.
        targets_BK: the actions of each video, 0 or 1. Videos without any are background.
        groups: the group of each video: videos of one group are never judged by each other.
        background_BVTD: the frame embeddings of videos in which none of the actions happens.
        background_groups: the group of each of them; None makes each its own group.

    Returns:
        The rejection, or None if no action has videos of two groups, because no video can be judged by others then.
    """
    labels_BK = np.asarray(targets_BK) > 0
    some = evenly_chosen(labels_BK, MOST_VIDEOS)
    parts = [JudgedMoments.of(np.asarray(embeddings_BVTD)[some])]
    labels, names = [labels_BK[some]], [groups[row] for row in some]
    if background_BVTD is not None and len(background_BVTD):
        none_BK = np.zeros((len(background_BVTD), labels_BK.shape[1]), bool)
        some = evenly_chosen(none_BK, MOST_BACKGROUND)
        own = [f"background {row}" for row in range(len(none_BK))] if background_groups is None else background_groups
        parts.append(JudgedMoments.of(np.asarray(background_BVTD)[some]).with_views(parts[0].moments.shape[1]))
        labels.append(none_BK[some])
        names += [own[row] for row in some]
    return fit_judge(JudgedMoments.joined(parts), np.concatenate(labels), names)


def fit_judge(moments: JudgedMoments, labels_BK: Bools, groups: Sequence[str]) -> Rejection | None:
    """Fit the rejection to videos whose moments were computed before. All of them are learned from.

    Args:
        moments: the moments of the videos.
        labels_BK: the actions of each video; videos without any are background.
        groups: the group of each video.
    """
    videos = JudgedVideos.of(moments, labels_BK, groups)
    everything = np.ones(len(videos.labels), bool)
    whole = videos.evidence(everything)
    is_known = whole.usable & videos.is_judged
    if not is_known.any():
        return None
    coefficients = _coefficients(videos, whole.values[is_known])
    stored = videos.stored(whole.answers)
    known_N = known_of(whole.values[is_known], coefficients)
    return Rejection(
        **stored,
        coefficients=coefficients.astype(np.float32),
        thresholds=np.quantile(known_N, SHARES).astype(np.float32),
        far=np.array([np.quantile(whole.values[is_known, EVIDENCE.index("neighbours")], KEPT)], np.float32),
        least_change=np.array([STILL * videos.changes[videos.is_action].min()], np.float32),
    )


def _coefficients(videos: JudgedVideos, known_NE: Floats) -> Floats:
    """Return the coefficients of a `Rejection`: of the evidence, and a constant.

    Args:
        videos: the videos that are learned from.
        known_NE: the evidence on known videos, with no action left out.
    """
    mean_E, spread_E = known_NE.mean(axis=0), known_NE.std(axis=0)
    spread_E = np.where(spread_E > 1e-6, spread_E, 1.0)
    usual_E = np.array([USUAL[name] for name in EVIDENCE]) * (known_NE.std(axis=0) > 1e-6)
    values, is_known, weights = [], [], []
    for left_out in _left_out(videos):
        learned: Bools = ~np.asarray((videos.labels & left_out).any(axis=1))
        if videos.labels[learned].any(axis=0).sum() < LEAST_ACTIONS - 1:
            continue  # with several labels a video, an action may take nearly all videos with it
        found = videos.evidence(learned)
        known = learned & videos.is_judged & found.usable
        unknown = videos.is_action & ~(videos.labels & ~left_out).any(axis=1)
        for rows in (known, unknown & found.usable, ~videos.is_action & found.usable):
            values.append(found.values[rows])
            is_known.append(np.full(rows.sum(), rows is known))
            weights.append(np.full(rows.sum(), 1 / max(1, rows.sum())))
    standard_NE = (np.concatenate([*values, known_NE[:0]]) - mean_E) / spread_E
    known_N: Bools = np.concatenate([*is_known, np.zeros(0, bool)])
    if known_N.all() or not known_N.any():
        fitted_E, constant = usual_E, float(np.quantile(((known_NE - mean_E) / spread_E) @ usual_E, KEPT))
    else:
        fitted_E, constant = logistic(standard_NE, known_N, np.concatenate(weights), usual_E)
    return np.append(fitted_E / spread_E, constant + float(fitted_E / spread_E @ mean_E))


def _left_out(videos: JudgedVideos) -> Iterator[Bools]:
    """Yield the actions (K,) that are left out together, each once; and none at all, if the background alone is unknown."""
    num_actions = videos.labels.shape[1]
    if num_actions < LEAST_ACTIONS:
        if videos.has_background:
            yield np.zeros(num_actions, bool)
        return
    order = np.random.default_rng(0).permutation(num_actions)
    most = MOST_FOLDS if len(videos.labels) <= FEW_VIDEOS else FEW_FOLDS
    for part in np.array_split(order, min(num_actions, most)):
        left_out = np.zeros(num_actions, bool)
        left_out[part] = True
        yield left_out


def evenly_chosen(labels_BK: Bools, most: int) -> Array:
    """Return the indices of at most so many videos, in an order in which the first of them have all actions alike."""
    order = np.random.default_rng(0).permutation(len(labels_BK))
    first_label = np.where(labels_BK.any(axis=1), labels_BK.argmax(axis=1), -1)
    ranks = np.empty(len(order), int)
    for label in np.unique(first_label):
        rows = order[first_label[order] == label]
        ranks[rows] = np.arange(len(rows))
    return np.lexsort((order, ranks))[:most]
