"""Temporary seeds of the global random generators, which lm-eval reseeds on every call."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np


@contextmanager
def temporary_seed(python: int | None, numpy: int | None, torch: int | None) -> Iterator[None]:
    """Seed the global generators of `random`, NumPy and torch inside the block, and restore all of them after it.

    A seed of None leaves that generator's state as it is on entry. torch is touched only where it is already
    imported; its accelerator generators are included where an accelerator has been initialised.
    """
    library = sys.modules.get("torch")
    cuda = library is not None and library.cuda.is_available() and library.cuda.is_initialized()
    states = random.getstate(), np.random.get_state()
    torch_state = library.get_rng_state() if library is not None else None
    cuda_states = library.cuda.get_rng_state_all() if library is not None and cuda else None
    try:
        if python is not None:
            random.seed(python)
        if numpy is not None:
            np.random.seed(numpy)
        if torch is not None and library is not None:
            library.manual_seed(torch)
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        if library is not None and torch_state is not None:
            library.set_rng_state(torch_state)
        if library is not None and cuda_states is not None:
            library.cuda.set_rng_state_all(cuda_states)
