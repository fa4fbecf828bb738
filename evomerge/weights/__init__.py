"""Checkpoints and devices: layout, reader, resident model, export."""
