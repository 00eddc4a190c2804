"""The test of a built wheel: the native operators are there, compute, and have gradients."""

from __future__ import annotations

import torch

from gimp_fast.ops import available_backends, masked_l1_loss, nystrom_attention


def main() -> None:
    backends = available_backends()
    if backends["native"] != "available":
        raise SystemExit(f"the wheel has no native operators: {backends['native']}")
    loss = masked_l1_loss(
        torch.ones(3, 5),
        torch.zeros(3, 5),
        torch.ones(3).bool(),
        reduction="sum",
        backend="native",
    )
    q = torch.randn(1, 2, 301, 16, requires_grad=True)
    out = nystrom_attention(q, q, q, num_landmarks=32, backend="native")
    out.sum().backward()
    if loss.item() != 15 or out.shape != q.shape or not q.grad.isfinite().all():
        raise SystemExit(f"wrong results: a loss of {loss.item()}, an output of {out.shape}")
    print(f"torch {torch.__version__}: native operators compute")


if __name__ == "__main__":
    main()
