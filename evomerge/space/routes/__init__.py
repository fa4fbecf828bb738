"""Routes in the search space: genes for the order, repetition and scale of layers, decoded into paths and back."""
