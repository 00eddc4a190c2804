"""Losses and predictions of survival: hazards in bins of time, and Cox's partial likelihood.

In both, a patient has a time and ``event``: True if the event happened at that time, False if the
patient was censored then, that is, last seen without the event.

Time in K bins: ``edges`` (K + 1,) ascend, and bin k is [edges_k, edges_{k+1}). A model gives a
logit for each bin. Its sigmoid is the hazard h_k, the probability of the event in bin k of a
patient who reached it without, and S_k = Π_{j ≤ k} (1 − h_j) is the survival at the bin's end.
Everything is computed in logarithms and in at least fp32, so nothing needs to be clamped.

The losses check shapes and dtypes; to check values, too, would wait for a GPU.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor


def discrete_nll(logits: Tensor, bins: Tensor, event: Tensor, *, alpha: float = 0.0) -> Tensor:
    """Negative log-likelihood of each patient's bin, with censoring.

        event in bin y:     −log S_{y−1} − log h_y
        censored in bin y:  −(1 − α) log S_y

    Zadeh and Schmid, IEEE TPAMI 43(9), 2021, https://doi.org/10.1109/TPAMI.2020.2979450; α as in
    the code of MCAT, PORPOISE and SurvPath: (1 − α) (all patients) + α (those with an event).

    Args:
        logits: (B, K).
        bins: (B,) int64, the bin of each patient's time, from 0; see :func:`bin_of`.
        event: (B,) bool.
        alpha: α, from 0 to 1.

    Returns:
        (B,)

    Raises:
        ValueError: shapes, dtypes or an α that do not fit.
    """
    logits = _by_bin("discrete_nll: logits", logits)
    _expect("discrete_nll: bins", bins, (len(logits),), torch.int64)
    _expect("discrete_nll: event", event, (len(logits),), torch.bool)
    if not 0 <= alpha <= 1:
        raise ValueError(f"discrete_nll: alpha: found {alpha}; expected a number from 0 to 1")
    log_survival = F.pad(F.logsigmoid(-logits).cumsum(1), (1, 0))  # (B, K + 1), from S_{−1} = 1
    bins = bins[:, None]  # (B, 1)
    # Not masks of the bins until y, for which a bin that is not there would be no error.
    of_event = log_survival.gather(1, bins) + F.logsigmoid(logits).gather(1, bins)
    of_censored = (1 - alpha) * log_survival.gather(1, bins + 1)
    return -of_event.where(event[:, None], of_censored).squeeze(1)


def discrete_survival(logits: Tensor) -> Tensor:
    """S_k, the probability of no event until the end of each bin, (B, K) from logits (B, K)."""
    return F.logsigmoid(-_by_bin("discrete_survival: logits", logits)).cumsum(1).exp()


def discrete_risk(logits: Tensor) -> Tensor:
    """−Σ_k S_k, (B,) from logits (B, K): the higher, the sooner the event is expected.

    It orders patients, as in the code of MCAT: bins count the same whatever their length.
    """
    return -discrete_survival(logits).sum(1)


def interpolated_survival(survival: Tensor, edges: Tensor, times: Tensor) -> Tensor:
    """Survival at any time: S_a^(1 − f) S_b^f for a time at the fraction f from edge a to edge b.

    Its logarithm is linear within a bin: the hazard is constant there. It is 1 until the first
    edge, and from the last on what it is there. In a bin that never ends, the survival at its end
    is never reached: give :func:`bins_of_training`'s last edge an end, such as the longest time of
    training, to use it.

    Args:
        survival: (B, K) at the end of each bin; see :func:`discrete_survival`.
        edges: (K + 1,), ascending; the last may be infinite.
        times: (T,), without NaN.

    Returns:
        (B, T), in the dtype of ``survival`` or fp32.

    Raises:
        ValueError: shapes, dtypes or values that do not fit.
    """
    survival = _by_bin("interpolated_survival: survival", survival)
    _expect("interpolated_survival: edges", edges, (survival.shape[1] + 1,))
    bins = bin_of(times, edges)  # (T,)
    edges, times = _in_one_dtype(edges, times)
    start, end = edges[bins], edges[bins + 1]
    # From the end on it is 1: an infinite time in a bin without end would be ∞ / ∞.
    fraction = ((times - start) / (end - start)).clamp(0, 1).where(times < end, 1.0)
    fraction = fraction.to(survival.dtype)
    at_edges = F.pad(survival, (1, 0), value=1.0)  # (B, K + 1)
    # Powers and not logarithms: 0⁰ is 1, so an edge has its value even where that is 0.
    return at_edges[:, bins] ** (1 - fraction) * at_edges[:, bins + 1] ** fraction


def bins_of_training(time: Tensor, event: Tensor, count: int) -> Tensor:
    """Edges (K + 1,) of K bins, fp64: 0, quantiles of the times of events, infinity.

    Quantiles are interpolated as by ``pandas.qcut``, so about as many events fall into each bin.

    Args:
        time: (N,) of the training patients.
        event: (N,) bool.
        count: K.

    Raises:
        ValueError: shapes or dtypes that do not fit, a time that is no finite number of 0 or more,
            fewer distinct times of events than bins, or a bin that equal times leave empty.
    """
    _expect("bins_of_training: time", time, ("N",))
    _expect("bins_of_training: event", event, (len(time),), torch.bool)
    if count < 1:
        raise ValueError(f"bins_of_training: count: found {count}; expected 1 or more")
    bad = time[~(time.isfinite() & (time >= 0))].tolist()
    if bad:
        raise ValueError(f"bins_of_training: time: found {bad[0]}; expected 0 or more, and finite")
    ordered = time[event].double().sort().values
    distinct = len(ordered.unique())
    if distinct < count:
        raise ValueError(
            f"bins_of_training: found {distinct} distinct times of events; expected at least "
            f"{count}, one for each bin"
        )
    # In whole numbers, so that a quantile that is an event's time equals it.
    place = torch.arange(1, count, device=time.device) * (len(ordered) - 1)
    below = place // count
    inner = ordered[below].lerp(ordered[below + 1], (place % count).double() / count)
    counts = torch.searchsorted(inner, ordered, right=True).bincount(minlength=count).tolist()
    if 0 in counts:
        raise ValueError(
            f"bins_of_training: found equal times that leave a bin without an event, {counts}; "
            "expected one or more in each: ask for fewer bins"
        )
    return F.pad(F.pad(inner, (1, 0), value=0.0), (0, 1), value=float("inf"))


def bin_of(time: Tensor, edges: Tensor) -> Tensor:
    """The bin of each time, (N,) int64: k where edges_k ≤ time < edges_{k+1}.

    Times before the first edge are in the first bin, those from the last edge on in the last.

    Args:
        time: (N,), without NaN.
        edges: (K + 1,), ascending, of which the last may be infinite; see :func:`bins_of_training`.

    Raises:
        ValueError: shapes or values that do not fit.
    """
    _expect("bin_of: time", time, ("N",))
    _expect("bin_of: edges", edges, ("K + 1",))
    if time.isnan().any():
        raise ValueError("bin_of: time: found NaN; expected numbers")
    ascend = (edges[1:] > edges[:-1]) & edges[:-1].isfinite()
    if len(edges) < 2 or not ascend.all():
        raise ValueError(
            f"bin_of: edges: found {edges.tolist()}; expected two or more, ascending, and only the "
            "last infinite"
        )
    edges, time = _in_one_dtype(edges, time)
    return torch.searchsorted(edges[1:-1], time, right=True)


def cox_loss(
    log_risk: Tensor,
    time: Tensor,
    event: Tensor,
    *,
    ties: Literal["efron", "breslow"] = "efron",
) -> Tensor:
    """Negative log partial likelihood of Cox's model, divided by the number of events.

        L = −1/n Σ_t Σ_{l < m_t} [θ_l − log(Σ_{r ∈ R_t} exp θ_r + (1 − f_l) Σ_{d ∈ D_t} exp θ_d)]

    θ is the log risk. D_t are the m_t patients with an event at t, counted by l, and R_t all others
    who are still at risk: with a later time, or censored at t. f_l is l / m_t with Efron's
    correction for ties, which leaves out those who had the event already, and 0 with Breslow's.

    Cox, J. R. Stat. Soc. B 34(2), 1972; Breslow, Biometrics 30(1), 1974; Efron, J. Am. Stat.
    Assoc. 72(359), 1977. All sums are of positive terms, taken in logarithms.

    Args:
        log_risk: (B,). Half precisions compute in fp32.
        time: (B,).
        event: (B,) bool.
        ties: the correction.

    Returns:
        Scalar; zero, with zero gradient, without an event.

    Raises:
        ValueError: shapes or dtypes that do not fit, or an unknown correction.
    """
    _expect("cox_loss: log_risk", log_risk, ("B",), "floating point")
    _expect("cox_loss: time", time, (len(log_risk),))
    _expect("cox_loss: event", event, (len(log_risk),), torch.bool)
    if ties not in ("efron", "breslow"):
        raise ValueError(f"cox_loss: ties: found {ties!r}; expected 'efron' or 'breslow'")
    # The latest first; within a time, the censored, who are still at risk, before the events.
    order = event.byte().argsort(stable=True)
    order = order[time[order].argsort(stable=True, descending=True)]
    risk = log_risk.to(torch.promote_types(log_risk.dtype, torch.float32))[order]  # (B,)
    time, event = time[order], event[order]
    run, first, size = _runs(time, event)
    before = F.pad(risk.logcumsumexp(0), (1, 0), value=float("-inf"))[first]  # R_t, at an event
    tied = _log_sum_of_runs(risk, run)  # D_t, at an event
    if ties == "efron":
        place = torch.arange(len(risk), device=risk.device) - first  # l
        tied = tied + ((size - place).to(risk.dtype) / size).log()
    terms = torch.logaddexp(before, tied) - risk
    return terms.where(event, 0.0).sum() / event.sum().clamp(min=1)


def _runs(time: Tensor, event: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of each sorted patient, the run of equal time and event: number, first place and length."""
    starts = (time[1:] != time[:-1]) | (event[1:] != event[:-1])
    run = F.pad(starts, (1, 0))[: len(time)].cumsum(0)
    first = torch.searchsorted(run, run)
    return run, first, torch.searchsorted(run, run, right=True) - first


def _log_sum_of_runs(values: Tensor, run: Tensor) -> Tensor:
    """log Σ exp over each patient's run, (B,)."""
    largest = torch.full_like(values, float("-inf")).scatter_reduce(0, run, values.detach(), "amax")
    largest = largest[run]
    sums = torch.zeros_like(values).index_put((run,), (values - largest).exp(), accumulate=True)
    return largest + sums[run].log()


def _in_one_dtype(edges: Tensor, times: Tensor) -> tuple[Tensor, Tensor]:
    """Both in the wider of their dtypes, and in at least fp32."""
    dtype = torch.promote_types(torch.promote_types(edges.dtype, times.dtype), torch.float32)
    return edges.to(dtype), times.to(dtype)


def _by_bin(where: str, values: Tensor) -> Tensor:
    """Values (B, K) in at least fp32."""
    _expect(where, values, ("B", "K"), "floating point")
    if not values.shape[1]:
        raise ValueError(f"{where}: found no bin; expected one or more")
    return values.to(torch.promote_types(values.dtype, torch.float32))


def _expect(
    where: str,
    values: Tensor,
    shape: tuple[int | str, ...],
    dtype: torch.dtype | Literal["floating point"] | None = None,
) -> None:
    """ValueError unless the values have the shape, in which a letter is any length, and dtype."""
    fits = values.dim() == len(shape) and all(
        isinstance(expected, str) or found == expected
        for found, expected in zip(values.shape, shape, strict=True)
    )
    if not fits:
        expected = ", ".join(map(str, shape))
        raise ValueError(f"{where}: found shape {tuple(values.shape)}; expected ({expected})")
    floating = dtype == "floating point" and values.is_floating_point()
    if dtype is not None and values.dtype != dtype and not floating:
        raise ValueError(f"{where}: found {values.dtype}; expected {dtype}")


def outcome_pairs(bins: Tensor, event: Tensor) -> tuple[Tensor, Tensor]:
    """Who is alike and who differs, of patients whose outcome may be censored: two (B, B) bool.

    Two patients form a pair only if what was seen decides it:

    - alike: both had the event, in the same bin;
    - different: one had the event, and the other, censored or not, has a time in a later bin, so
      was still without the event when the bin of the first ended.

    Any other two are no pair: a patient who was censored may have had the event later in the same
    bin or in any that follows. So anchors of triplets are patients with an event, and censored ones
    serve as negatives. This is ours; the paper has classes.

    Args:
        bins: (B,) int64, in the order of time.
        event: (B,) bool, False where the patient was censored.

    Raises:
        ValueError: shapes or dtypes that do not fit.
    """
    _expect("outcome_pairs: bins", bins, ("B",), torch.int64)
    _expect("outcome_pairs: event", event, (len(bins),), torch.bool)
    both = event[:, None] & event[None, :]
    itself = torch.eye(len(bins), dtype=torch.bool, device=bins.device)
    outlived = event[:, None] & (bins[None, :] > bins[:, None])  # the first, by the second
    return both & (bins[:, None] == bins[None, :]) & ~itself, outlived | outlived.T
