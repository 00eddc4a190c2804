"""A model of time: what Nyström attention and its peers should take on a GPU that is not here.

python benchmarks/gpu_model.py [--gpu 3090 h200] [--shape 8x6000 1x148569 300x1000-packed]
                               [--dtype bf16] [--occupancy] [--json] [--markdown] [--no-peers]

The kernels are those of the operator's forward and backward pass, recorded on tensors without data.
A kernel takes the longest of

    flop     ÷ (rate of the GPU for their precision × expected part × share of busy SMs)
    bytes    ÷ (bandwidth × expected part), of the memory and of the second-level cache
    2 to 3 µs, from one kernel to the next

and 2.5 µs more for each step after which programs wait for each other. The operator takes the
longer of the sum of its kernels and the time of the host, which starts them.
Figures of GPUs, and what is expected of them, are in ``_gpu_devices.py``; the products of each
kernel in ``_gpu_kernels.py``. Host time is measured on this machine, with launches that do nothing.

Floor: the necessary work at the figures of the data sheet. Flop are those of the benchmark
(``nystrom_attention.py``); bytes are q, k, v and the output once forward, and these four and three
gradients once backward.

--occupancy compiles the kernels for the GPU, which takes minutes the first time, and adds the warps
that a multiprocessor runs at a time and the waves of programs. The time does not depend on them.
"""

from __future__ import annotations

import argparse
import json
import math
from typing import Any

import _host_time
from _device_operations import count_layer
from _gpu_devices import DEVICES, HOST_US, MEMORY, STEP_US, Device
from _gpu_kernels import works
from _gpu_occupancy import occupancy
from _gpu_peers import PEERS, works_of_peer
from _gpu_work import DTYPES, Case, Work
from _nystrom_measure import flop
from _nystrom_peers import Setting

SHAPES = ("8x6000", "1x6000", "128x6000", "1x148569", "300x1000-packed")


def parse_shape(text: str) -> dict[str, Any]:
    """``BAGSxTOKENS``, or ``BAGSxTOKENS-packed``."""
    sizes, _, layout = text.partition("-")
    batch, _, tokens = sizes.partition("x")
    if not (batch.isdigit() and tokens.isdigit() and layout in ("", "packed")):
        raise argparse.ArgumentTypeError(f"{text!r} is not like 8x6000 or 300x1000-packed")
    return {"batch": int(batch), "tokens": int(tokens), "packed": layout == "packed"}


def parts(work: Work, device: Device) -> dict[str, float]:
    """Microseconds that each limit of the GPU would take."""
    busy = 1.0 if work.busy is None else work.busy
    if work.busy is None and work.programs is not None:
        share = work.programs / device.multiprocessors
        busy = share / math.ceil(share)
    rate = device.rate(work.unit) * getattr(device, work.expected) * busy
    return {
        "products": 1e6 * work.flop / rate,
        "memory": work.memory_bytes / (1e3 * device.memory_gb_s * MEMORY),
        "cache": work.l2_bytes / (1e3 * device.l2_gb_s),
        "steps": STEP_US * work.steps,
        "start": device.kernel_us,
    }


def time_us(work: Work, device: Device) -> float:
    """Nothing else can happen while programs wait for each other."""
    found = parts(work, device)
    return found.pop("steps") + max(found.values())


def floor_ms(case: Case, device: Device) -> float:
    setting = Setting(
        "op", case.dtype, "cuda", case.batch, case.heads, case.head_dim, case.landmarks
    )
    unit = "half" if case.dtype != "fp32" else "ieee"
    # q, k, v and the output; then these, or the gradient of the output, and three gradients.
    tensors = 4 + 7
    seconds = flop(setting, case.tokens, backward=True) / device.rate(unit)
    return 1e3 * max(seconds, tensors * case.bytes_of_rows / (1e9 * device.memory_gb_s))


def host_ms(case: Case) -> float:
    """Forward and backward of the operator on this processor, the driver left out."""
    sizes = case.batch, case.tokens, case.heads, case.head_dim, case.landmarks
    return _host_time.host_ms(*sizes, DTYPES[case.dtype])


def predict(case: Case, device: Device, options: argparse.Namespace) -> dict[str, Any]:
    """One record: what is counted, and the times that follow from it."""
    passes = works(case, device)
    found = [work for part in passes.values() for work in part]
    host = host_ms(case) if options.host else None
    gpu = sum(time_us(work, device) for work in found) / 1e3
    floor, predicted = floor_ms(case, device), max(gpu, host or 0.0)
    warps = {}
    if options.occupancy:
        dtype = str(DTYPES[case.dtype]).removeprefix("torch.")
        warps = occupancy(device.capability, dtype, case.head_dim)
    record = {
        "gpu": device.name,
        "shape": str(case),
        **{key: getattr(case, key) for key in ("dtype", "heads", "head_dim", "landmarks")},
        "launches": sum(work.config is not None for work in found),
        "operations": len(found),
        **layer_counts(case, device),
        "host_ms": host,
        "gpu_ms": gpu,
        "forward_gpu_ms": sum(time_us(work, device) for work in passes["forward"]) / 1e3,
        "predicted_ms": predicted,
        "floor_ms": floor,
        "share_of_floor": floor / predicted,
        "gflop": sum(work.flop for work in found) / 1e9,
        "memory_mb": sum(work.memory_bytes for work in found) / 1e6,
        "kernels": [row_of(work, device, warps) for work in found],
    }
    if options.peers:
        record["peers"] = {name: predict_peer(name, case, device) for name in PEERS}
    return record


def layer_counts(case: Case, device: Device) -> dict[str, int]:
    """What a GPU runs for a whole layer under autocast to bf16, and how often the host waits."""
    dim = case.heads * case.head_dim
    sizes = {"dim": dim, "heads": case.heads, "landmarks": case.landmarks}
    counts = count_layer(
        case.batch, case.tokens, packed=case.packed, capability=device.capability, **sizes
    )
    return {"device_operations": counts.device_operations, "syncs": counts.waits.total()}


def row_of(
    work: Work, device: Device, warps: dict[tuple[str, str], dict[str, int]]
) -> dict[str, Any]:
    """What is printed of a kernel; with what it needs, if it was compiled."""
    limits = parts(work, device)
    row = {
        "name": work.name,
        "us": time_us(work, device),
        "limit": max(limits, key=limits.__getitem__),
        "gflop": work.flop / 1e9,
        "unit": work.unit,
        "memory_mb": work.memory_bytes / 1e6,
        "cache_mb": work.l2_bytes / 1e6,
        "programs": work.programs,
    }
    needs = warps.get((work.name, str(work.config)))
    if needs:
        together = device.multiprocessors * needs["warps"] // work.config.num_warps
        row |= needs | {"waves": work.programs / together}
    return row


def predict_peer(name: str, case: Case, device: Device) -> dict[str, float]:
    """Without a measurement: the host takes the same time for every operation."""
    found = works_of_peer(name, case)
    gpu, host = sum(time_us(work, device) for work in found) / 1e3, HOST_US * len(found) / 1e3
    return {
        "operations": len(found),
        "gflop": sum(work.flop for work in found) / 1e9,
        "memory_mb": sum(work.memory_bytes for work in found) / 1e6,
        "host_ms": host,
        "gpu_ms": gpu,
        "predicted_ms": max(gpu, host),
    }


def print_record(record: dict[str, Any]) -> None:
    host = "not measured" if record["host_ms"] is None else f"{record['host_ms']:.2f} ms"
    print(f"\n{record['gpu']}, {record['shape']}, {record['dtype']}, {record['heads']} heads of "
          f"{record['head_dim']}, {record['landmarks']} landmarks")  # fmt: skip
    print(f"  {'kernel':<42} {'µs':>8} {'limit':<9} {'Gflop':>8} {'MB':>7} {'cache':>7} programs")
    for row in record["kernels"]:
        fit = f" {row['warps']} warps, {row['waves']:.1f} waves" if "waves" in row else ""
        print(
            f"  {row['name']:<42} {row['us']:>8.1f} {row['limit']:<9} {row['gflop']:>8.2f} "
            f"{row['memory_mb']:>7.1f} {row['cache_mb']:>7.0f} {row['programs'] or '':>8}{fit}"
        )
    print(
        f"  {record['launches']} launches, {record['operations']} operations; whole layer: "
        f"{record['device_operations']} operations, {record['syncs']} syncs; "
        f"GPU {record['gpu_ms']:.2f} ms, host {host}: "
        f"{record['predicted_ms']:.2f} ms; floor {record['floor_ms']:.2f} ms, "
        f"{record['share_of_floor']:.0%} of it reached"
    )
    for name, peer in record.get("peers", {}).items():
        print(
            f"  {name:<24} {peer['operations']:>4} operations, {peer['gflop']:,.0f} Gflop, "
            f"{peer['memory_mb']:,.0f} MB: {peer['predicted_ms']:.2f} ms"
        )


def print_markdown(records: list[dict[str, Any]]) -> None:
    """A row for each record: times in ms, of forward and backward together."""
    peers = list(records[0].get("peers", {}))
    print("| " + " | ".join(["GPU", "shape", "launches", "GPU time", "floor", *peers]) + " |")
    print("|" + "---|" * (5 + len(peers)))
    for record in records:
        cells = [record["gpu"], record["shape"], str(record["launches"])]
        times = [record["gpu_ms"], record["floor_ms"]]
        times += [record["peers"][name]["predicted_ms"] for name in peers]
        print("| " + " | ".join(cells + list(map(three_digits, times))) + " |")


def three_digits(x: float) -> str:
    return f"{x:,.{max(0, 2 - math.floor(math.log10(x)))}f}"


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gpu", nargs="+", choices=list(DEVICES), default=["3090", "h200"])
    parser.add_argument("--shape", nargs="+", type=parse_shape, metavar="BAGSxTOKENS[-packed]")
    parser.add_argument("--dtype", choices=list(DTYPES), default="bf16")
    parser.add_argument("--heads", type=int, default=8)
    parser.add_argument("--head-dim", type=int, default=64)
    parser.add_argument("--landmarks", type=int, default=256)
    parser.add_argument("--occupancy", action="store_true", help="compile; takes minutes once")
    parser.add_argument("--no-peers", dest="peers", action="store_false", help="only this package")
    parser.add_argument("--no-host", dest="host", action="store_false", help="do not measure it")
    output = parser.add_mutually_exclusive_group()
    output.add_argument("--json", action="store_true", help="one record a line")
    output.add_argument("--markdown", action="store_true", help="one row a case")
    options = parser.parse_args(argv)
    sizes = {name: getattr(options, name) for name in ("heads", "head_dim", "landmarks", "dtype")}
    try:
        shapes = options.shape or list(map(parse_shape, SHAPES))
        options.cases = [Case(**shape, **sizes) for shape in shapes]
    except ValueError as error:
        parser.error(str(error))
    return options


def main(argv: list[str] | None = None) -> None:
    options = parse(argv)
    records = []
    for name in options.gpu:
        for case in options.cases:
            records.append(predict(case, DEVICES[name], options))
            if options.json:
                print(json.dumps(records[-1]), flush=True)
            elif not options.markdown:
                print_record(records[-1])
    if options.markdown:
        print_markdown(records)


if __name__ == "__main__":
    main()
