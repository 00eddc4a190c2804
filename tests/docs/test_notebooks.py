"""The notebooks run from the first cell to the last, in a folder of their own."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
MAIN_LINES = 12  # of the path from files to predictions

if not NOTEBOOKS:
    pytest.skip("the tests lie without the notebooks", allow_module_level=True)
nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")


def name_of(path: Path) -> str:
    return path.stem


def read(path: Path):
    return nbformat.read(path, as_version=4)


def outputs(notebook) -> list[dict]:
    cells = (cell for cell in notebook.cells if cell.cell_type == "code")
    return [output for cell in cells for output in cell.outputs]


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=name_of)
def test_a_notebook_runs_in_another_folder(path, tmp_path, monkeypatch):
    for threads in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.setenv(threads, "1")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    notebook = read(path)
    client = nbclient.NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": tmp_path}}
    )
    client.execute()  # raises the error of a cell
    shown = {kind for output in outputs(notebook) for kind in output.get("data", {})}
    assert "text/html" in shown
    wanted = set() if path.stem == "nystrom_attention" else {"image/png"}
    assert wanted <= shown


@pytest.mark.parametrize("path", NOTEBOOKS, ids=name_of)
def test_a_notebook_is_stored_without_outputs(path):
    notebook = read(path)
    nbformat.validate(notebook)
    assert outputs(notebook) == []
    assert {cell.get("execution_count") for cell in notebook.cells} == {None}


def test_the_three_are_listed_in_the_docs():
    page = (ROOT / "docs" / "notebooks.md").read_text(encoding="utf-8")
    assert len(NOTEBOOKS) == 3
    assert all(f"(../notebooks/{path.name})" in page for path in NOTEBOOKS)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=name_of)
def test_a_notebook_of_patients_calls_them_synthetic(path):
    text = "".join(cell.source for cell in read(path).cells)
    assert "SYNTHETIC" in text or "write_synthetic_cohort" not in text


def test_the_main_path_is_a_dozen_lines():
    notebook = read(ROOT / "notebooks" / "files_to_report.ipynb")
    main = [c.source for c in notebook.cells if "main" in c.metadata.get("tags", ())]
    lines = [line for line in "\n".join(main).splitlines() if line.strip()]
    assert len(main) == 3
    assert 8 <= len(lines) <= MAIN_LINES
