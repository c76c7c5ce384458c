"""The verbs: one module each, run as `kindling VERB` or `python -m launch.VERB`."""

import os

# A thread of the OpenMP runtime that spins while it waits starves the others on a machine that is shared:
# training small models was 30 times slower. Set before torch is imported; a value of the user's own stays.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")
