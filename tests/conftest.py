"""One torch thread in tests: workers of pytest-xdist and spinning OpenMP threads would fight over few cores."""

import torch

torch.set_num_threads(1)
