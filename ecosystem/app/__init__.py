"""The interactive page (``ecosystem view``): a live world, a stored run, or two of them side by side.

``film`` reads a run folder for looking at, ``recording`` steps a live world in a thread and commits it to a folder that
a film reads, ``stage`` is what Mesa's SolaraViz plays, ``page`` and ``panels`` draw it, ``server`` serves it.
"""

LIBRARY = "/ecosystem/vega.js"  # the path at which the page's server has Vega; here, since events imports solara
