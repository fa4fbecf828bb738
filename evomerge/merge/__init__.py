"""Pure tensor math of merging: catalogue, kernels, methods."""
