"""Files of any kind: written whole or not at all, tables, HDF5 checks, isolated and parallel work.

A leaf: every room may import it, and it knows nothing of slides, genes or models.
"""
