"""A small, independent core with the public interface of Dassl.pytorch 0.6.3 (see ../README.md)."""

__version__ = "0.6.3+bundled"
