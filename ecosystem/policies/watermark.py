"""Watermarks as a policy: complying trainers mark their text with it, and gates refuse marked text."""

from __future__ import annotations

from typing import Annotated, ClassVar

import polars as pl
from pydantic import Field, model_validator

from ecosystem.corpus.watermark_spec import Scheme, WatermarkSpec
from ecosystem.policies.base import POLICIES, Context, Filter
from ecosystem.policies.reasons import first_reason
from ecosystem.spec import ScenarioParts

# The fields of one scheme only.
_SCHEME_FIELDS = {"green_list": ("green_share", "bias"), "synthid": ("context_width", "depth")}


@POLICIES.register("watermark")
class Watermark(Filter):
    """Refuses documents in which a watermark is detected, human or synthetic.

    Complying trainers whose ``decoding.watermark`` names this policy write with the watermark, whether or not any gate
    applies the policy. ``green_list`` favours the tokens that the previous token makes green (Kirchenbauer et al.
    2023), as ``transformers.WatermarkingConfig`` does. ``synthid`` lets tokens compete in a tournament of ``depth``
    rounds (Dathathri et al. 2024), which preserves the distribution on average over keys.

    The z-score is the number of standard deviations above the mean of unmarked text. Numbers of green tokens are not
    quite normal: of unmarked texts with 16, 32, 64 and 96 scored tokens, at a green share of 0.25, 2.9, 1.6, 1.2 and
    1.1 in 10,000 exceed z = 4, against 0.3 for the normal distribution. For a given key, false positives are likelier
    for some human documents than for others, since their common phrases are always green, or never.
    """

    reads_text: ClassVar[bool] = True

    model: str = Field(
        description="name of the model whose tokenizer reads texts; trainers that mark text write with it"
    )
    scheme: Scheme = Field("green_list", description="watermarking scheme: green_list or synthid")
    key: Annotated[int, Field(ge=1, le=2**31)] = Field(15_485_863, description="secret key of the watermark")
    green_share: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        None, description="green_list only: share of all tokens that is green; absent: 0.25"
    )
    bias: Annotated[float, Field(gt=0, le=50)] | None = Field(
        None, description="green_list only: amount added to the logits of green tokens; absent: 2"
    )
    context_width: Annotated[int, Field(ge=1, le=16)] | None = Field(
        None,
        description="synthid only: number of previous tokens that the mark depends on; absent: 4 (green_list: 1)",
    )
    depth: Annotated[int, Field(ge=1, le=30)] | None = Field(
        None, description="synthid only: rounds of the tournament, each of which takes time; absent: 5"
    )
    threshold: Annotated[float, Field(gt=0)] = Field(4.0, description="z-score above which a document is refused")
    min_tokens: Annotated[int, Field(ge=1)] = Field(
        16, description="fewest scored tokens of a refused document; shorter documents are kept"
    )
    compliance: Annotated[float, Field(ge=0, le=1)] = Field(
        1.0,
        description="share of the trainers naming the policy that do mark text; a larger share adds trainers",
    )

    @model_validator(mode="after")
    def _one_scheme(self) -> Watermark:
        for scheme, fields in _SCHEME_FIELDS.items():
            for field in fields:
                if scheme != self.scheme and getattr(self, field) is not None:
                    raise ValueError(f'{field} is not allowed with scheme = "{self.scheme}"; remove it')
        return self

    def problems(self, path: str, scenario: ScenarioParts) -> list[str]:
        """Require a model that can watermark, and the same model of trainers that write with it."""
        name, problems = path.rpartition(".")[2], []
        for population, trainer in scenario.trainers.items():
            if trainer.decoding.watermark == name and trainer.model in scenario.models and trainer.model != self.model:
                where = f"trainers.{population}"
                problems.append(
                    f'{where}.decoding.watermark: the policy "{name}" reads texts with the model "{self.model}", but '
                    f'{where}.model is "{trainer.model}"; marks are detected only with the model that wrote them: '
                    "give this population a policy of its own"
                )
        model = scenario.models.get(self.model)
        if model is not None and not model.supports_watermark:
            problems.append(
                f'{path}.model: the model "{self.model}" is of kind {model.kind}, which can neither write nor detect '
                f"watermarks; choose a model of kind {', '.join(model.watermarking_kinds())}"
            )
        return problems

    @property
    def mark(self) -> WatermarkSpec:
        """The watermark."""
        values = {name: getattr(self, name) for name in _SCHEME_FIELDS[self.scheme]}
        return WatermarkSpec(
            self.scheme, self.key, **{name: value for name, value in values.items() if value is not None}
        )

    def refuse(self, docs: pl.DataFrame, ctx: Context) -> pl.Series:
        """Refuse by z-score."""
        z, scored = ctx.models.watermark(self.model, self.mark, docs["doc"])
        marked = (pl.col("scored") >= self.min_tokens) & (pl.col("z") > self.threshold)
        reason = pl.format("watermark: z {} is above {}", pl.col("z").round(1), pl.lit(f"{self.threshold:g}"))
        return first_reason(pl.DataFrame({"z": z, "scored": scored}), [(marked, reason)])
