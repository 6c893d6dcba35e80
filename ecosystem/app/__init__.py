"""The interactive page (``ecosystem view``): a live world, a stored run, or two of them side by side.

``run_view`` reads a run folder for display. ``live_run`` steps a world in a thread and commits it to a folder that a
view reads. ``session_model`` is the model that Mesa's SolaraViz plays, ``page`` and ``panels`` draw it, and ``server``
serves the page.
"""

LIBRARY = "/ecosystem/vega.js"  # URL path of Vega on the page's server; defined here because events imports solara
