"""Files of any kind: atomic writing, tables, checks of HDF5, isolated and parallel reading.

A leaf: every room may import it, and it knows nothing about slides, genes or models.
"""
