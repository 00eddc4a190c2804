"""The GPUs that ``gpu_model.py`` knows: figures of data sheets, and the part that is expected.

A figure is what NVIDIA publishes for the dense case, at boost clock. An expectation is ours: no
kernel of this package has been timed on a GPU yet. The first results replace the expectations.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Device:
    """One GPU.

    Attributes:
        name: as it is printed.
        capability: compute capability, 86 for 8.6.
        multiprocessors: SMs.
        clock_ghz: boost clock of the figures.
        half, tf32, fp32: 10¹² flop a second. Half is bf16 or fp16 with fp32 sums, on tensor cores;
            fp32 is that of the ordinary units.
        memory_gb_s: of the GPU's memory.
        l2_mib: second-level cache.
        source: of the figures so far.
        l2_gb_s: expected from the second-level cache. No data sheet has it.
        attention: part of the peak that is expected of our attention kernels.
        inverse: the same of the pseudo-inverse, whose tiles are small.
        library: the same of torch's matrix products and fused attention.
        kernel_us: shortest time from one kernel to the next.
    """

    name: str
    capability: int
    multiprocessors: int
    clock_ghz: float
    half: float
    tf32: float
    fp32: float
    memory_gb_s: float
    l2_mib: float
    source: str
    l2_gb_s: float
    attention: float
    inverse: float
    library: float
    kernel_us: float

    def rate(self, unit: str) -> float:
        """Flop a second of products: "half", "tf32", "tf32x3" or "ieee" (fp32)."""
        rates = {"half": self.half, "tf32": self.tf32, "tf32x3": self.tf32 / 3, "ieee": self.fp32}
        return 1e12 * rates[unit]


# Parts of the peak: fused attention of D = 64 by the best libraries has 0.6 on Ampere and 0.4 on
# Hopper, where Triton's kernels have less. A copy by torch has 0.9 of the figure of an H200.
DEVICES = {
    "3090": Device(
        "RTX 3090", 86, 82, 1.695, 71.2, 35.6, 35.6, 936, 6,
        "NVIDIA Ampere GA102 GPU architecture, table of the RTX 3090",
        l2_gb_s=2000, attention=0.5, inverse=0.4, library=0.6, kernel_us=3.0,
    ),
    "a100": Device(
        "A100 80 GB SXM", 80, 108, 1.41, 312, 156, 19.5, 2039, 40,
        "NVIDIA A100 data sheet; A100 tensor core GPU architecture",
        l2_gb_s=4500, attention=0.45, inverse=0.35, library=0.6, kernel_us=2.5,
    ),
    "h100": Device(
        "H100 SXM", 90, 132, 1.83, 989.4, 494.7, 66.9, 3352, 50,
        "NVIDIA H100 data sheet; H100 tensor core GPU architecture",
        l2_gb_s=5500, attention=0.3, inverse=0.25, library=0.4, kernel_us=2.0,
    ),
    "h200": Device(
        "H200 SXM", 90, 132, 1.83, 989.4, 494.7, 66.9, 4800, 60,
        "NVIDIA H200 data sheet; the cache as torch reports it",
        l2_gb_s=5500, attention=0.3, inverse=0.25, library=0.4, kernel_us=2.0,
    ),
}  # fmt: skip
MEMORY = 0.9  # part of the memory's figure that a kernel has
STEP_US = 2.5  # a meeting of the pseudo-inverse's programs, the first loads after it included
HOST_US = 8.0  # Python and torch for one operation, its gradient apart
