"""A reader of your own: features in NumPy's .npy, an array (N, C) a slide.

gimp-fast prepare --plugin own_reader.py --slides npy --rna rna.csv --labels labels.csv --out cohort
gimp-fast train --plugin own_reader.py --data cohort --out runs/first
"""

import numpy as np

from gimp_fast import data


class Npy(data.SlideFile):
    def __init__(self, path):
        self.rows = np.load(path, mmap_mode="r", allow_pickle=False)
        patches, channels = self.rows.shape
        super().__init__(data.SlideInfo(path, "npy", "", patches, channels, str(self.rows.dtype)))

    def _read(self, start, stop):  # (stop - start, C) float32
        return np.array(self.rows[start:stop], np.float32)

    def coords(self):  # (N, 2), or None
        return None


data.register_reader(".npy", Npy)
