"""The interactive page (``ecosystem view``): a live world, a stored run, or two of them side by side.

``run_view`` reads a run folder for display; ``live_run`` steps a live world in a thread and commits it to a folder that
a view reads; ``session_model`` is the model that Mesa's SolaraViz plays; ``page`` and ``panels`` draw it; ``server``
serves it.
"""

LIBRARY = "/ecosystem/vega.js"  # the path at which the page's server has Vega; here, since events imports solara
