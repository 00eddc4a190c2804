"""GiMP: gene-induced multimodal pre-training for image-omic classification.

Importing the package is cheap: torch, triton and the native library load when they are first used.
"""

__version__ = "0.1.0"
