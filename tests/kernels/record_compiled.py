"""Compile every kernel again, and write what each needs: `python tests/kernels/record_compiled.py`.

For whoever changed a kernel, or a version of Triton or torch; it takes a quarter of an hour. The
tests then read the record.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from builders.compiled_kernels import RECORD, record_lines

from gimp_fast.files.atomic import write_text

if __name__ == "__main__":
    write_text(RECORD, "\n".join(record_lines()) + "\n")
