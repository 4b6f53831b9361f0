"""Errors of the census.

::

    ArtesianError
    └── CensusError     a saved census that cannot be read
"""

from artesian.model.errors import ArtesianError


class CensusError(ArtesianError):
    """A saved census that is damaged, or written by a version that this one does not read."""
