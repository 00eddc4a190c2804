"""Work on one patient after the other, of whom one who fails does not stop the others."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from gimp_fast.errors import GimpError, is_out_of_memory

Result = TypeVar("Result")
# Of RuntimeErrors, only that memory ran out ends one patient's work but not that of the others.
_FAILURES = (GimpError, OSError, MemoryError, RuntimeError)


def of_each(
    case_ids: Sequence[str],
    work: Callable[[str], tuple[Result, str]],
    log: Callable[[str], None],
) -> tuple[dict[str, Result], list[dict[str, str]]]:
    """Results by patient, and failures: ``case_id`` and ``error``.

    Args:
        case_ids: the patients, in this order.
        work: result of a patient, and what happened in words.
        log: receives one line for each patient.
    """
    results: dict[str, Result] = {}
    failures: list[dict[str, str]] = []
    for number, case in enumerate(case_ids, start=1):
        begin = time.perf_counter()
        try:
            results[case], outcome = work(case)
        except _FAILURES as error:
            if isinstance(error, RuntimeError) and not is_out_of_memory(error):
                raise
            failures.append({"case_id": case, "error": " ".join(str(error).split())})
            log(f"{number}/{len(case_ids)} {case}: failed: {failures[-1]['error']}")
            continue
        log(f"{number}/{len(case_ids)} {case}: {outcome}, {time.perf_counter() - begin:.1f} s")
    return results, failures
