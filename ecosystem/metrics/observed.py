"""Metrics of what instruments observe of the web, of what they hide, and of what readers see."""

from __future__ import annotations

from ecosystem.metrics.definitions import Definition, define

OBSERVED: dict[str, Definition] = {
    "flagged_share": Definition(
        "1",
        "up",
        "share of the documents in an instrument's sample that its detector takes for machine text",
        formula="Σ v ⟦flagged⟧ / Σ v over the sample; v: views of readers (of = read), else 1; expected value: "
        "s(1 - FNR) + (1 - s)FPR for a share s of machine text",
    ),
    "ai_text_share": Definition(
        "1",
        "up",
        "share of AI in the text of the documents in an instrument's sample, estimated with an error",
        formula="Σ v ai_share / Σ v over the sample + bias + error · a standard normal number",
    ),
    "posts": Definition(
        "1",
        "down",
        "documents published in the step that are not taken for machine text, relative to the baseline of an "
        "instrument",
        formula="count at the step / mean count over the steps of the baseline",
    ),
    "pages_gone": Definition(
        "1",
        "",
        "share of the documents in an instrument's sample of pages seen earlier that have left the web since",
        formula="pages gone / pages sampled",
    ),
    "synthetic_kept_ratio": Definition(
        "1",
        "",
        "how much more often a policy keeps documents that an instrument takes for machine text than others",
        formula="(kept / reached of flagged documents) / (kept / reached of the others)",
    ),
    "true_value": Definition(
        "the unit of what the instrument observes",
        "",
        "what an instrument would give if it saw every document without errors, which nobody in the simulation knows",
        formula="as what the instrument observes, with FPR = FNR = bias = error = 0 and without sampling",
    ),
    "read_synthetic_share": Definition(
        "1",
        "up",
        "share of machine text in what readers see: sites are visited in proportion to their PageRank, and their live "
        "documents are read alike, multiplied by prominence; mixed documents count by their share of AI",
        formula="Σ v ai_share / Σ v; v = w PageRank(site) / live documents of the site",
    ),
}
define(OBSERVED, f"{__name__}.OBSERVED")
