"""Triton kernels, one stem per op, imported as ``gimp_fast.kernels``.

Importing this package never imports triton.
"""
