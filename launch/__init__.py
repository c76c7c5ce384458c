"""The verbs: one module each, run as `kindling VERB` or `python -m launch.VERB`."""

import os

# A thread of the OpenMP runtime that spins while it waits starves the others on a machine that is shared:
# training small models was 30 times slower. Set before torch is imported; a value of the user's own stays.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")
# A tensor of tens of megabytes, such as the gradient of a large item table, is fresh memory from Linux in each step,
# page by page. With pages of 2 MB in place of 4 KB it is there in a quarter of the time.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
