"""Copies of a running search for TensorBoard, Weights & Biases and MLflow; one file per tool."""
