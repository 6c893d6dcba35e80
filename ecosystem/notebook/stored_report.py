"""``ecosystem.Report``: the charts of a stored report of any sort."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ecosystem.errors import EcosystemError, path_argument
from ecosystem.notebook.chart_set import ChartSet
from ecosystem.report.charts import LIGHT, Scheme

_PAGE = "report.html"
_SPECS = re.compile(r'<script type="application/json" id="specs">(.*?)</script>', re.DOTALL)


class Report(ChartSet):
    """The charts of a stored report, of a study, a fit, a threshold, a comparison or a run: ``report["name"]``.

    They are read from the page, so they are those of the moment it was written. ``folder`` is the folder with the
    page ``report.html``, or that page. Raises EcosystemError if there is none, or if it has no charts.
    """

    def __init__(self, folder: str | Path, scheme: Scheme = LIGHT) -> None:
        super().__init__(scheme)
        place = Path(path_argument(folder, "folder"))
        page = place if place.name == _PAGE else place / _PAGE
        try:
            found = _SPECS.search(page.read_text(encoding="utf-8"))
            specs = json.loads(found[1]) if found else None
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise EcosystemError(f"{page} cannot be read ({reason}); name the folder of a report.") from None
        except ValueError:
            specs = None
        if not isinstance(specs, dict):
            raise EcosystemError(f"{page} is no report of this version; write it again with the command that made it.")
        self._page, self._stored = page, specs

    def __repr__(self) -> str:
        return f"<Report {self._page}: {len(self)} charts>"

    def _specs(self) -> Mapping[str, dict[str, Any]]:
        return self._stored
