"""`prepare` on a cohort of GDC's size: 1,000 STAR files of 60,660 genes, and a slide for each.

python benchmarks/prepare.py [--files 1000] [--genes 60660] [--folder /fast/disk]

Writes synthetic files in GDC's layout (copies of 20 different tables; every file is parsed), runs
the command, and samples the total memory of it and of its processes.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import torch
from _common import add_shared_options, write_results

HEADER = (
    "# gene-model: GENCODE v36\n"
    "gene_id\tgene_name\tgene_type\tunstranded\tstranded_first\tstranded_second\ttpm_unstranded"
    "\tfpkm_unstranded\tfpkm_uq_unstranded\n"
    + "".join(f"N_{row}\t\t\t1000\t1000\t1000\t\t\t\n" for row in
              ("unmapped", "multimapping", "noFeature", "ambiguous"))
)  # fmt: skip
BODIES = 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=1000)
    parser.add_argument("--genes", type=int, default=60_660)
    parser.add_argument("--folder", type=Path, help="where to write; default: a temporary folder")
    add_shared_options(parser, device="no difference")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="gimp-fast-prepare-", dir=arguments.folder))
    try:
        size = write_inputs(folder, arguments.files, arguments.genes)
        measured = {"input_gb": size / 1e9} | run_prepare(folder)
    finally:
        shutil.rmtree(folder)
    print(f"{arguments.files} files of {arguments.genes} genes, {measured['input_gb']:.1f} GB")
    print(f"{measured['seconds']:.0f} s, {measured['peak_mib']:.0f} MiB in all processes together")
    if not arguments.no_write:
        facts = {"files": arguments.files, "genes": arguments.genes} | measured
        print(f"wrote {write_results('prepare', 'cpu', facts, arguments.results)}")


def write_inputs(folder: Path, files: int, genes: int) -> int:
    """A GDC download, slides and labels; returns the bytes of the RNA files."""
    rng = np.random.default_rng(0)
    names = [f"ENSG{n:011d}.{n % 20}\tGENE{n}\tprotein_coding" for n in range(genes)]
    bodies = []
    for _ in range(min(BODIES, files)):
        fpkm = np.exp2(rng.normal(1, 3, genes)).round(4)
        rows = (
            f"{name}\t{v * 50:.0f}\t{v * 25:.0f}\t{v * 25:.0f}\t{v * 1.3:.4f}\t{v:.4f}\t{v:.4f}\n"
            for name, v in zip(names, fpkm.tolist(), strict=True)
        )
        bodies.append((HEADER + "".join(rows)).encode())
    slides, rna = folder / "slides", folder / "rna"
    slides.mkdir()
    sheet = ["File ID\tFile Name\tData Type\tCase ID\tSample ID\tSample Type"]
    labels = ["case_id,slide_id,label"]
    for number in range(files):
        case, name = f"TCGA-00-{number:04d}", f"{number}.rna_seq.augmented_star_gene_counts.tsv"
        target = rna / f"uuid-{number}" / name
        target.parent.mkdir(parents=True)
        target.write_bytes(bodies[number % len(bodies)])
        cells = (f"uuid-{number}", name, "Gene Expression", case, f"{case}-01A", "Primary Tumor")
        sheet.append("\t".join(cells))
        torch.save(torch.randn(20, 64), slides / f"{case}.pt")
        labels.append(f"{case},{case},{'AB'[number % 2]}")
    (rna / "gdc_sample_sheet.tsv").write_text("\n".join(sheet) + "\n", encoding="utf-8")
    (folder / "labels.csv").write_text("\n".join(labels) + "\n", encoding="utf-8")
    return sum(len(bodies[number % len(bodies)]) for number in range(files))


def run_prepare(folder: Path) -> dict[str, float]:
    command = [sys.executable, "-m", "gimp_fast.prepare"]
    for name in ("slides", "rna"):
        command += [f"--{name}", str(folder / name)]
    command += ["--labels", str(folder / "labels.csv"), "--out", str(folder / "cohort")]
    start = time.perf_counter()
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True)
    peak = [0]
    watch = threading.Thread(target=_watch, args=(process, peak))
    watch.start()
    printed, _ = process.communicate()
    seconds = time.perf_counter() - start
    watch.join()
    if process.returncode:
        raise SystemExit(f"prepare ended with {process.returncode}")
    print(printed)
    return {"seconds": seconds, "peak_mib": peak[0] / 2**20}


def _watch(process: subprocess.Popen, peak: list[int]) -> None:
    while process.poll() is None:
        peak[0] = max(peak[0], sum(_memory(pid) for pid in _family(process.pid)))
        time.sleep(0.05)


def _family(pid: int) -> list[int]:
    """A process and all its descendants."""
    found = [pid]
    for parent in found:
        try:
            children = Path(f"/proc/{parent}/task/{parent}/children").read_text()
        except OSError:
            continue
        found += map(int, children.split())
    return found


def _memory(pid: int) -> int:
    """Bytes of a process; memory shared by n processes counts 1/n in each."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith("Pss:")), 0)


if __name__ == "__main__":
    main()
