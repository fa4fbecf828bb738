"""The engine's pico parents serve these tests too."""

from tests.engine.conftest import *  # noqa: F403
