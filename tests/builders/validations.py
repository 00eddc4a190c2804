"""How tests validate models on small cohorts."""

from __future__ import annotations

from gimp_fast.external.options import ValidateOptions

# Small groups have scores, so that there are some.
QUICK_VALIDATION = ValidateOptions(
    exclude_known=True, resamples=60, fewest_patients=8, fewest_events=2, seed=3
)
