"""The version of evomerge; apart from `evomerge/__init__.py`, so that no module imports the whole public API."""

__version__ = "0.1.0"
