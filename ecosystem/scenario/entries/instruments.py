"""Define instruments: ways to observe the web at dates, from samples and with errors."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field, model_validator

from ecosystem.spec import Spec
from ecosystem.times import Instant, Steps, WholeSteps
from ecosystem.types import Positive, Share

Observed = Literal["flagged_share", "ai_text_share", "posts", "pages_gone", "synthetic_kept_ratio"]
Population = Literal["new", "live", "crawl", "read", "new_sites"]
Interval = Annotated[list[Instant], Field(min_length=2, max_length=2)]

_DETECTOR = ("ai_share_above", "false_positive_rate", "false_negative_rate")
_FIELDS: dict[str, tuple[str, ...]] = {
    "flagged_share": ("of", "window", "sample", *_DETECTOR),
    "ai_text_share": ("of", "window", "sample", "bias", "error"),
    "posts": ("baseline", *_DETECTOR),
    "pages_gone": ("of", "seen", "sample"),
    "synthetic_kept_ratio": ("policy", "sample", *_DETECTOR),
}  # beside those of every instrument
_POPULATIONS = {"flagged_share": (), "ai_text_share": (), "pages_gone": ("new", "live")}  # (): all of them
_REQUIRED = {"posts": "baseline", "pages_gone": "seen", "synthetic_kept_ratio": "policy"}


class InstrumentSpec(Spec):
    """A way to observe the web at dates, from a sample of documents and with the errors of a detector.

    Whether its detector takes a document for machine text is the same at every date. Samples are drawn anew at every
    date, except those of pages_gone.
    """

    observes: Observed = Field(
        description="flagged_share: share of documents that a detector takes for machine text; ai_text_share: mean "
        "share of AI in documents, estimated for all of them together; posts: documents published in a step that are "
        "not taken for machine text, relative to `baseline`; pages_gone: share of the pages `seen` that have left the "
        "web; synthetic_kept_ratio: how much more often `policy` keeps machine text than human text"
    )
    of: Population | None = Field(
        None,
        description="documents that are observed; new: published within `window`, and still on the web; live: all on "
        "the web; crawl: those that crawlers reach, on sites that do not refuse them; read: all on the web, by how "
        "often readers see them (sites by PageRank, documents of a site alike, times prominence); new_sites: the first "
        "document of every site born since the opening, if published within `window`. For pages_gone: pages published "
        "(new) or on the web (live) at a step of `seen`. Absent: live, and new for pages_gone",
    )
    site_types: Annotated[list[str], Field(min_length=1)] | None = Field(
        None, description="types of sites (`web.types`) whose documents are observed; absent: all sites"
    )
    window: Steps | None = Field(None, description="time within which new documents were published; absent: one step")
    sample: Positive | None = Field(
        None,
        description="documents sampled at a date, without replacement, or all if there are fewer; for read, views, "
        "with replacement; absent: all documents",
    )
    ai_share_above: Annotated[float, Field(ge=0, lt=1)] | None = Field(
        None,
        description="a document is machine text to the detector if more than this share of it is AI; 0: any; "
        "absent: 0.5",
    )
    false_positive_rate: Share | None = Field(
        None, description="probability that the detector takes another document for machine text; absent: 0"
    )
    false_negative_rate: Share | None = Field(
        None, description="probability that the detector takes machine text for another document; absent: 0"
    )
    bias: Annotated[float, Field(ge=-1, le=1)] | None = Field(
        None, description="for ai_text_share: what is added to every estimate; absent: 0"
    )
    error: Annotated[float, Field(ge=0, le=1)] | None = Field(
        None,
        description="for ai_text_share: standard deviation of the estimate at a date, beside that of sampling; "
        "absent: 0",
    )
    baseline: Interval | None = Field(
        None, description="for posts: first and last date of the steps whose mean number of documents counts as 1"
    )
    seen: Interval | None = Field(
        None, description="for pages_gone: first and last date at which the pages were published or on the web"
    )
    policy: str | None = Field(
        None, description="for synthetic_kept_ratio: filter of `web.publish` or of a trainer's `select`"
    )
    every: WholeSteps | None = Field(None, description="time from one observation to the next; absent: one step")
    begin: Instant | None = Field(None, alias="from", description="date of the first observation; absent: the opening")
    until: Instant | None = Field(None, description="date of the last possible observation; absent: the last step")

    @model_validator(mode="after")
    def _applies(self) -> InstrumentSpec:
        allowed = _FIELDS[self.observes]
        for field in sorted({field for fields in _FIELDS.values() for field in fields} - set(allowed)):
            if getattr(self, field) is not None:
                owners = ", ".join(name for name, fields in _FIELDS.items() if field in fields)
                raise ValueError(f"{field}: has no meaning for {self.observes}, only for {owners}; remove it")
        populations = _POPULATIONS.get(self.observes, ())
        if self.of is not None and populations and self.of not in populations:
            raise ValueError(f"of: pages that were seen are {' or '.join(populations)} at that time, not {self.of}")
        if self.window is not None and self.of not in ("new", "new_sites"):
            raise ValueError('window: has no meaning unless new documents are observed; set of = "new", or remove it')
        required = _REQUIRED.get(self.observes)
        if required is not None and getattr(self, required) is None:
            raise ValueError(f"{required}: is required, since {self.observes} depends on it; set it")
        for field in ("baseline", "seen"):
            interval = getattr(self, field)
            if interval is not None and interval[0] > interval[1]:
                raise ValueError(f"{field}: its first date comes after its last; give the first one first")
        if self.baseline is not None and not self.baseline_steps:
            raise ValueError("baseline: has no step after the opening; give dates that include one")
        if self.begin is not None and self.until is not None and self.begin > self.until:
            raise ValueError("until: comes before from, so that nothing is observed; give a later date")
        return self

    @property
    def population(self) -> str:
        """Documents that are observed."""
        return self.of or ("new" if self.observes == "pages_gone" else "live")

    @property
    def baseline_steps(self) -> range:
        """Steps of the baseline; the opening is none of them."""
        first, last = self.baseline or (1, 0)
        return range(max(1, math.ceil(first)), math.floor(last) + 1)

    @property
    def threshold(self) -> float:
        """Share of AI above which a document is machine text to the detector."""
        return 0.5 if self.ai_share_above is None else self.ai_share_above

    def observes_within(self, steps: int) -> bool:
        """Return whether there is an observation, of documents that may exist, from the opening to step ``steps``."""
        first = 0 if self.baseline is None else self.baseline_steps[-1]
        if self.seen is not None:
            if self.seen[1] < (0 if self.population == "live" else 1):
                return False
            first = math.ceil(self.seen[1])
        return any(self.observes_at(t) for t in range(first, steps + 1))

    def observes_at(self, t: int) -> bool:
        """Return whether there is an observation at step ``t``."""
        first = math.ceil(self.begin or 0.0)
        return first <= t <= (t if self.until is None else self.until) and (t - first) % (self.every or 1) == 0
