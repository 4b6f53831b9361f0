"""artesian: find, schedule and keep productive the AI compute you already own.

Effective compute = nameplate × healthy × allocated × productive × MFU. Each tower of this package
measures or raises one of those factors; ``docs/concepts`` explains them.
"""

__version__ = "0.1.0"
__all__ = ["__version__"]
