"""katipo's version, as the build has it (meson.build; a test compares them)."""

__version__ = "0.1.0"
