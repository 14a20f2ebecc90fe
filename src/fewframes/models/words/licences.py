"""The licences of image-text weights, as those state them who publish the weights. open_clip itself does not say them.

They were written down by hand, from the publishers' pages. A tag that is not here is said to have none that is known.
"""

from __future__ import annotations

from typing import NamedTuple


class WeightsLicence(NamedTuple):
    """The licence of published weights."""

    name: str
    """Its name; `not known here` if it is not in this list."""
    forbids: str = ""
    """The use that it forbids, in words; empty if it allows commercial use, or is not known."""

    def line(self, weights: str) -> str:
        """Return the licence of these weights in one line, with what it forbids."""
        return f"{self.name} ({weights})" + (f"; forbids {self.forbids}" if self.forbids else "")


UNKNOWN = WeightsLicence("not known here; read it where the weights are published")
RESEARCH = WeightsLicence("Apple Machine Learning Research Model licence", "any use but research")
NON_COMMERCIAL = WeightsLicence("CC-BY-NC-4.0", "commercial use")
MIT, APACHE = WeightsLicence("MIT"), WeightsLicence("Apache-2.0")
BY_TAG: dict[str, WeightsLicence] = {
    "openai": MIT,
    "webli": APACHE,
    "meta": APACHE,
    "merged2b_s8b_b131k": MIT,
    "merged2b_s4b_b131k": MIT,
    "merged2b_s6b_b61k": MIT,
    "laion2b_s9b_b144k": MIT,
    "datacompdr": RESEARCH,
    "datacompdr_lt": RESEARCH,
    "dfndr2b": RESEARCH,
    "dfn2b": RESEARCH,
    "dfn2b_s39b": RESEARCH,
    "dfn5b": RESEARCH,
    "metaclip_400m": NON_COMMERCIAL,
    "metaclip_fullcc": NON_COMMERCIAL,
    "metaclip_altogether": NON_COMMERCIAL,
    "metaclip2_worldwide": NON_COMMERCIAL,
}
"""The licence by the tag of the weights."""
BY_START: dict[str, WeightsLicence] = {"laion": MIT, "datacomp_": MIT, "commonpool_": MIT}
"""The licence by the beginning of the tag, for tags that are not in `BY_TAG`: those of LAION and of DataComp."""


def licence_of(tag: str) -> WeightsLicence:
    """Return the licence of the weights of this tag."""
    starts = (licence for start, licence in BY_START.items() if tag.startswith(start))
    return BY_TAG.get(tag) or next(starts, UNKNOWN)
