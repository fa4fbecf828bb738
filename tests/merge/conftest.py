"""Property tests repeat themselves exactly, and a busy machine does not fail them."""

from hypothesis import settings

settings.register_profile("merge", deadline=None, derandomize=True)
settings.load_profile("merge")
