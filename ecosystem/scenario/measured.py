"""Why a metric of the web or of trainers is certain never to be measured in a scenario, so that nothing waits for it.

A metric that no rule names may be measured: whether it is can depend on what models write.
"""

from __future__ import annotations

from collections.abc import Callable

from ecosystem.metrics.base import TEXT_METRICS
from ecosystem.metrics.conditions import WEB, Comparison
from ecosystem.metrics.definitions import COSTS, QUANTILES
from ecosystem.metrics.observed import OBSERVED
from ecosystem.metrics.tasks import TASKS
from ecosystem.policies.base import Policy, WritesWatermark
from ecosystem.policies.sampling import Prefer
from ecosystem.scenario.tables import ScenarioTables

_OF_OTHERS = {
    **dict.fromkeys(("sites", "sites_born", "sites_died"), "types of sites"),
    **dict.fromkeys(("left_page_died", "left_site_died", "left_curated", "left_filtered"), "types of sites"),
    **dict.fromkeys(("kept_human", "refused_human", "kept_synthetic", "refused_synthetic", "in_force"), "policies"),
    **dict.fromkeys(("true_positive_rate", "false_positive_rate", "auc"), "policies that learn"),
    **dict.fromkeys((m for m in COSTS if m not in ("tokens_trained", "documents_trained")), "costs"),
    **dict.fromkeys(("audience", "writing"), "writers"),
    **dict.fromkeys(("share_writing", "share_using_ai", "share_silent"), "communities of writers"),
    **dict.fromkeys(("human_benefit", "ai_benefit", "welfare"), "communities of writers"),
    **dict.fromkeys(("reviewed_human", "reviewed_synthetic", "suspect_human", "suspect_synthetic"), "curators"),
    **dict.fromkeys(OBSERVED, "instruments"),
    "crawl_refused_share": "the web and of types of sites",
    "read_synthetic_share": "the web",
}
"""Metrics that trainers and training sets never have → whose they are."""
_QUALITY = ("cross_entropy", "perplexity", "bits_per_byte", "excess_nats")
_FREQUENCY = ("cross_entropy_frequent", "cross_entropy_rare")
_HELD_OUT = {*_QUALITY, *_FREQUENCY, *(f"{name}_change" for name in ("cross_entropy", *_FREQUENCY))}
_TEXT = {
    *(
        "cross_entropy_synthetic",
        "training_loss",
        "tokens_trained",
        "mean_words",
        "next_token_l1",
        "documents_published",
    ),
    *("watermark_z", "watermark_found", "complies", *_HELD_OUT, *(f"initial_perplexity_q{q:02d}" for q in QUANTILES)),
}
_CATEGORIES = {
    *("simpson", "gini_simpson", "entropy_share", "support", "max_probability", "mode", "first_type", "tail_mass"),
    *("tail_types", "unseen_mass"),
}
_VECTORS = {
    *("mean_error", "log_variance", "standard_deviation", "w2", "density_distance", "density_change", "hellinger"),
    *("test_error", "latent_log_std"),
}
_PARAMETERS = {
    *("held_out_nll", "l1", "l2", "variance", "accuracy", "label_accuracy", "label_noise", "collapsed", "collapsed_at"),
    "documents_trained",
}

Rule = Callable[[ScenarioTables, str], bool]


def _has(s: ScenarioTables, kind: type[Policy]) -> bool:
    return any(isinstance(policy, kind) for policy in s.policies.values())


def _text_metric(s: ScenarioTables, metric: str) -> bool:
    """Return whether a text metric is not among those listed."""
    listed = s.measure.texts
    kinds = {name: kind for kind, cls in TEXT_METRICS.all().items() for name in cls.defined(kind)}
    return listed is not None and metric in kinds and kinds[metric] not in listed


def _task(s: ScenarioTables, metric: str) -> bool:
    """Return whether a metric is that of a task on which no model is evaluated."""
    for kind, cls in TASKS.all().items():
        tuned, untuned = cls.defined(kind)
        if metric in (tuned, untuned):
            settings = s.measure.downstream
            return settings is None or kind not in (settings.tasks if metric == tuned else settings.zero_shot)
    return False


def _held_out(s: ScenarioTables, metric: str) -> bool:
    """Return whether a metric needs held-out text that there is not."""
    initial = s.web.initial
    source = None if initial is None else s.sources.get(initial.source)
    return metric in _HELD_OUT and (initial is None or (source is not None and not source.held_out))


_SETTINGS: list[tuple[Rule, str, str]] = [  # whether a setting is missing; the beginning of its path; what to do
    (
        lambda s, m: m == "held_out_overlap" and s.measure.overlap is None,
        "measure.overlap",
        "add a table [measure.overlap]",
    ),
    (
        lambda s, m: (
            m == "crawl_refused_share" and not any(t.refuses is not None for t in (s.web.types or {}).values())
        ),
        "web.types",
        "set web.types.NAME.refuses",
    ),
    (
        lambda s, m: m == "read_synthetic_share" and not s.measures_views,
        "instruments",
        "add an instrument, types of sites, or adoption of AI by writers",
    ),
    (_held_out, "web.initial", "set held_out of the source of web.initial"),
    (
        lambda s, m: m == "cross_entropy_synthetic" and not s.measure.synthetic,
        "measure.synthetic",
        "set measure.synthetic",
    ),
    (lambda s, m: m == "next_token_l1" and not s.measure.contexts, "measure.contexts", "set measure.contexts"),
    (
        lambda s, m: m.startswith("radioactivity_") and s.measure.radioactivity is None,
        "measure.radioactivity",
        "set measure.radioactivity",
    ),
    (
        lambda s, m: m.startswith("initial_perplexity_") and not s.measure.initial_perplexity,
        "measure.initial_perplexity",
        "set measure.initial_perplexity",
    ),
    (lambda s, m: m == "hellinger" and s.measure.density is None, "measure.density", "set measure.density"),
    (
        lambda s, m: (
            m.startswith("watermark_") and not any(isinstance(p, WritesWatermark) for p in s.policies.values())
        ),
        "policies",
        "add a policy of kind watermark",
    ),
    (
        lambda s, m: m == "complies" and all(t.decoding.watermark is None for t in s.trainers.values()),
        "trainers",
        "set decoding.watermark of the trainers",
    ),
    (
        lambda s, m: m == "reward" and not (_has(s, Prefer) and s.web.publish),
        "web.publish",
        "list a policy of kind prefer in web.publish",
    ),
    (_text_metric, "measure.texts", "list its kind in measure.texts"),
    (_task, "measure.downstream", "list its task in measure.downstream"),
]


def _of_other_models(modality: str) -> set[str]:
    """Return metrics of models of other documents than these."""
    if modality == "text":
        return _CATEGORIES | _VECTORS | _PARAMETERS
    texts = {name for kind, cls in TEXT_METRICS.all().items() for name in cls.defined(kind)} - {"entropy"}
    return _TEXT | texts | (_VECTORS if modality == "category" else _CATEGORIES)


def unmeasured(s: ScenarioTables, comparison: Comparison) -> str:
    """Return why a condition's metric is certain never to be measured, and what to do; "" if it may be."""
    metric, who = comparison.metric, "the web" if comparison.of == WEB else "trainers"
    if comparison.of != WEB and metric in _OF_OTHERS:
        return f"{who} have no {metric}, which is a metric of {_OF_OTHERS[metric]}; see `ecosystem list metrics`"
    if metric in _of_other_models(s.modality):
        return f"{metric} is not measured of models of {s.modality} documents; see `ecosystem list metrics`"
    set_later = {path for change in s.changes for path in change.set}
    for missing, path, remedy in _SETTINGS:
        if missing(s, metric) and not any(f"{later}.".startswith(f"{path}.") for later in set_later):
            return f"{metric} is never measured in this scenario; {remedy}"
    return ""
