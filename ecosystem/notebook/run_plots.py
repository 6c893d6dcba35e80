"""The charts of a run as methods that return Altair charts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import polars as pl

from ecosystem.errors import EcosystemError, nearest
from ecosystem.metrics.catalogue import definitions
from ecosystem.notebook.chart_set import ChartSet
from ecosystem.report import charts, run_charts, summaries, tail_charts
from ecosystem.report.charts import LIGHT, ChartLabels, Scheme
from ecosystem.report.data import RunReportData
from ecosystem.report.panels import site_map
from ecosystem.report.sections import sections

if TYPE_CHECKING:
    from altair.typing import ChartType

    from ecosystem.runs.run import Run

_SCOPES = ("trainer", "training_set", "web")


class RunPlots(ChartSet):
    """The charts of a run. Methods draw one chart; ``plot["name"]`` is any chart of the report by its name.

    Every method raises EcosystemError, with the charts that there are, if the run did not measure what it draws.
    """

    def __init__(self, run: Run, scheme: Scheme = LIGHT) -> None:
        super().__init__(scheme)
        self._run = run
        self._read: tuple[int, RunReportData] | None = None  # with the last step that it includes
        self._report: tuple[int, Mapping[str, dict[str, Any]]] | None = None

    def quality(self, metric: str = "cross_entropy", *, references: bool = False) -> ChartType:
        """Draw how well each population predicts held-out human text.

        ``metric``: ``cross_entropy``, ``perplexity``, ``bits_per_byte`` or ``excess_nats``. ``references``: let the
        axis reach to an untrained and to a counting model, which squeezes the curves if these are far worse.
        """
        _require(metric, run_charts.QUALITY)
        return self._drawn(run_charts.quality(self._data, metric, references), metric)

    def quality_change(self) -> ChartType:
        """Draw the change in cross-entropy of each population since its start, in nats per token."""
        return self._drawn(run_charts.quality_change(self._data), "cross_entropy at two steps")

    def contamination(self, metric: str = "synthetic_share") -> ChartType:
        """Draw the machine text on the web and in training sets.

        ``metric``: ``synthetic_share``, ``depth`` (model hops back to people) or ``held_out_overlap``.
        """
        _require(metric, run_charts.CONTAMINATION)
        return self._drawn(run_charts.contamination(self._data, metric), metric)

    def diversity(self, metric: str = "distinct_2") -> ChartType:
        """Draw a metric of the texts that trainers publish, such as ``distinct_2``, ``self_bleu`` or ``mean_words``."""
        _require(metric, run_charts.texts(self._data))
        return self._drawn(run_charts.diversity(self._data, metric), metric)

    def vocabulary(self) -> ChartType:
        """Draw the share of the human vocabulary that each population kept, from frequent to rare words."""
        return self._drawn(tail_charts.vocabulary(self._data), "vocabulary_kept")

    def tails(self, metric: str = "cross_entropy_rare") -> ChartType:
        """Draw what happens to rare text.

        ``metric``: ``cross_entropy_rare``, ``cross_entropy_frequent``, ``cross_entropy_synthetic``, ``next_token_l1``
        or ``radioactivity_z``.
        """
        _require(metric, [*tail_charts.BY_FREQUENCY, *tail_charts.DISTANCES])
        return self._drawn(tail_charts.tails(self._data).get(metric), metric)

    def parameter(self, metric: str) -> ChartType:
        """Draw a metric of models of vectors or categories, such as ``variance``, with its closed forms dashed."""
        _require(metric, run_charts.parameters(self._data))
        return self._drawn(run_charts.parameter(self._data, metric), metric)

    def web(self, step: int | None = None) -> ChartType:
        """Draw the map of the web after the opening, the middle or the last step (default: the last)."""
        data = self._data
        maps = dict(site_map.graphs(self._run.path, data.metrics, data.run.last_step, data.theme.calendar))
        name = f"web_{data.run.last_step if step is None else step:06d}"
        if maps and name not in maps:
            steps = ", ".join(str(int(key.removeprefix("web_"))) for key in maps)
            raise EcosystemError(f"step {step}: the web is drawn after steps {steps} only.")
        return self._drawn(maps.get(name), "the web site by site (measure.sites)")

    def metric(self, name: str, scope: str = "trainer") -> ChartType:
        """Draw any metric over steps, also one of a plug-in.

        ``scope``: ``trainer`` (mean of each population, with its members as thin lines), ``training_set`` or ``web``.
        ``ecosystem list metrics`` has the names.
        """
        _require(name, definitions(), "metric")
        _require(scope, _SCOPES, "scope")
        definition, data = definitions()[name], self._data
        labels = ChartLabels(run_charts.metric_title(name), definition.text, run_charts.metric_unit(name), ".3~g")
        single = summaries.members(data.metrics, name, "trainer" if scope == "web" else scope)
        web = summaries.series(data.metrics, "web", name).with_columns(label=pl.lit("web")) if scope == "web" else None
        single = single.clear() if scope == "web" else single
        if single.is_empty() and (web is None or web.is_empty()):
            return self._drawn(None, f"{name} of scope {scope}")
        means = summaries.means(single)
        chart = charts.over_steps(means, data.theme, labels, single=single, web=web, size=charts.WIDE)
        return self._drawn(chart, name)

    @property
    def _data(self) -> RunReportData:
        """The tables of the run, read again once it has more steps."""
        last = self._run.last_step
        if self._read is None or self._read[0] != last:
            self._read = last, RunReportData.of(self._run)
        return self._read[1]

    def _specs(self) -> Mapping[str, dict[str, Any]]:
        last = self._run.last_step
        if self._report is None or self._report[0] != last:
            data = RunReportData.of(self._run)
            for section in sections(data).values():
                section(data)
            self._report = last, data.specs
        return self._report[1]


def _require(name: str, allowed: Mapping[str, Any] | list[str] | tuple[str, ...], noun: str = "metric") -> None:
    if name not in allowed:
        listed = ", ".join(list(allowed)[:40])
        raise EcosystemError(f'there is no {noun} "{name}" here{nearest(str(name), allowed)}; choose from {listed}.')
