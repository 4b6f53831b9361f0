"""Ground floor: what both sides of the wire compute alike. Standard library only.

``flops``    floating-point operations of a decoder, forward and backward: what MFU is made of
``goodput``  the share of time that becomes progress, and the checkpoint interval that makes it highest
"""
