"""The verbs: one module each, run as `kindling VERB` or `python -m launch.VERB`."""
