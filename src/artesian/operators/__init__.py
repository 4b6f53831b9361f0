"""Operators: the stand-alone library of what a model computes with. Needs torch and nothing else of ours.

``reference``   every operator in plain torch: runs on any device, and is what a faster one must equal
"""

from artesian.operators.reference import apply_rope, rms_norm, rope_tables, swiglu

__all__ = ["apply_rope", "rms_norm", "rope_tables", "swiglu"]
