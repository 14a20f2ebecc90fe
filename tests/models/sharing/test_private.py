"""Records without the folders of the machine: which texts are shortened, and which are left as they are."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fewframes.models.sharing.private import without_paths
from helpers.heads import packaged


@pytest.mark.parametrize(
    ("told", "left"),
    [
        ("/home/anna/My Clips/list.csv", "list.csv"),
        ("/home/anna/clips/", "clips"),
        ("~/clips/list.csv", "list.csv"),
        ("../anna/list.csv", "list.csv"),
        (r"C:\Users\anna\clips\list.csv", "list.csv"),
        (r"\\server\anna\list.csv", "list.csv"),
        ("held-out videos of /data/anna/list.csv, one pass", "held-out videos of list.csv, one pass"),
        ("fewframes train ~/anna/clips -o /tmp/anna/out", "fewframes train clips -o out"),
        ("s3://key:secret@bucket/anna/list.csv?token=x", "list.csv"),
        ("from https://anna:pw@host/set.csv now", "from set.csv now"),
        ("github.com/someone/set at 0b7037", "github.com/someone/set at 0b7037"),
        ("movements (someone/FIR-Set): none stated", "movements (someone/FIR-Set): none stated"),
        ("right and/or left, 1/2 of it", "right and/or left, 1/2 of it"),
        ("clips/list.csv", "clips/list.csv"),
        ("lite0-16", "lite0-16"),
        ("", ""),
    ],
)
def test_the_last_part_of_a_path_is_left(told: str, left: str) -> None:
    file = replace(
        packaged(), provenance={"a": [{"b": told}], "n": 1, "t": True, "none": None}, metrics={}, licences={}
    )
    cleaned, shortened = without_paths(file)
    assert cleaned.provenance == {"a": [{"b": left}], "n": 1, "t": True, "none": None}
    assert bool(shortened) == (told != left)
    assert not any("secret" in text or "pw" in text for text in shortened)
    assert cleaned.labels == file.labels


def test_a_path_with_blanks_is_found_inside_other_texts() -> None:
    path = "/home/anna/My Clips/list.csv"
    file = replace(packaged(), provenance={"data": path}, metrics={"protocol": f"each group of {path}"}, licences={})
    cleaned, shortened = without_paths(file)
    assert cleaned.metrics == {"protocol": "each group of list.csv"}
    assert shortened == (path,)


def test_the_packaged_model_tells_nothing_of_the_kind() -> None:
    cleaned, shortened = without_paths(packaged())
    assert shortened == ()
    assert (cleaned.provenance, cleaned.metrics, cleaned.licences) == (
        packaged().provenance,
        packaged().metrics,
        packaged().licences,
    )
