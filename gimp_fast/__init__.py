"""GiMP: gene-induced multimodal pre-training for image-omic classification, and fast Nyström attention.

Importing the package is cheap: nothing heavy (torch, triton, the native library) loads before it is used.
"""

__version__ = "0.1.0"
