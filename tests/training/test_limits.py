"""Training on a machine that lacks something, in a folder that is taken, or interrupted."""

from __future__ import annotations

import signal

import pytest
import torch

from gimp_fast import experiments
from gimp_fast.errors import GimpError
from gimp_fast.files.locks import lock_file
from gimp_fast.ops.backends import choose_device
from gimp_fast.runs.checkpoint import load_checkpoint
from gimp_fast.train import main
from gimp_fast.training import load_config, train
from gimp_fast.training.sampling import PatientReader
from gimp_fast.training.stages import FinetuneStage, PretrainStage
from gimp_fast.training.stops import StopRequests

TINY = [
    "model.dim=8", "model.heads=2", "model.num_landmarks=8", "model.gene_fragments=8",
    "model.gene_groups=4", "model.head_hidden=8", "genes.epochs=1", "pretrain.epochs=2",
    "pretrain.window=16", "pretrain.batch_size=8", "finetune.epochs=1", "finetune.batch_size=8",
    "bootstrap=20", "threads=1", "device=cpu",
]  # fmt: skip

OUT_OF_MEMORY = {
    "numpy": MemoryError("Unable to allocate 9.00 GiB for an array"),
    "torch": RuntimeError("[enforce fail at alloc_cpu.cpp:1] DefaultCPUAllocator: can't allocate"
                          " memory: you tried to allocate 9 bytes. Error code 12"),
    "GPU": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9.00 GiB"),
}  # fmt: skip


def config(*overrides):
    return load_config(overrides=[*TINY, *overrides])


def quiet(text: str) -> None:
    pass


@pytest.fixture(autouse=True)
def ctrl_c_as_in_a_terminal():
    """A shell starts what runs in the background with Ctrl-C ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("kind", OUT_OF_MEMORY)
def test_memory_that_runs_out_says_what_needs_less_and_the_run_resumes(
    cohort_folder, tmp_path, monkeypatch, kind
):
    run = tmp_path / "run"

    def losses(self, batch, share):
        raise OUT_OF_MEMORY[kind]

    with monkeypatch.context() as patch:
        patch.setattr(PretrainStage, "losses", losses)
        with pytest.raises(GimpError, match="memory ran out in stage 'pretrain'") as error:
            train(config(), cohort_folder, run, log=quiet)
    for advice in ("pretrain.batch_size (now 8)", "pretrain.window (now 16)", "--fit", "--resume",
                   "model.checkpoint_layers=true"):  # fmt: skip
        assert advice in str(error.value)
    metrics = train(config(), cohort_folder, run, resume=True, log=quiet)
    assert metrics["test"]["n"] > 0


def test_memory_that_runs_out_while_a_batch_is_read(cohort_folder, tmp_path, monkeypatch):
    def read(self, *arguments):
        raise OUT_OF_MEMORY["torch"]

    monkeypatch.setattr(PatientReader, "inputs", read)
    overrides = ["genes.epochs=0", "pretrain.epochs=0", "finetune.freeze_genes=false", "workers=1"]
    with pytest.raises(GimpError, match=r"memory ran out in stage 'finetune'.*while a batch was"):
        train(config(*overrides), cohort_folder, tmp_path / "run", log=quiet)


def test_an_error_of_the_program_is_not_taken_for_memory(cohort_folder, tmp_path, monkeypatch):
    def losses(self, batch, share):
        raise RuntimeError("shapes do not fit")

    monkeypatch.setattr(FinetuneStage, "losses", losses)
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        train(
            config("genes.epochs=0", "pretrain.epochs=0", "finetune.freeze_genes=false"),
            cohort_folder,
            tmp_path / "run",
        )


def test_ctrl_c_saves_the_state_and_the_run_ends_as_an_uninterrupted_one(
    cohort_folder, tmp_path, monkeypatch, capsys
):
    original, steps = PretrainStage.losses, iter(range(1000))

    def losses(self, batch, share):
        if next(steps) == 1:
            signal.raise_signal(signal.SIGINT)
        return original(self, batch, share)

    with monkeypatch.context() as patch:
        patch.setattr(PretrainStage, "losses", losses)
        with pytest.raises(KeyboardInterrupt, match=r"pretrain epoch 1; the state is saved"):
            train(config(), cohort_folder, tmp_path / "a", log=quiet)
    assert "Ctrl-C again stops at once" in capsys.readouterr().err
    _, state = load_checkpoint(tmp_path / "a" / "checkpoints" / "last.safetensors")
    assert (state["stage"], state["epoch"], state["step"]) == ("pretrain", 0, 2)
    resumed = train(config(), cohort_folder, tmp_path / "a", resume=True, log=quiet)
    assert resumed == train(config(), cohort_folder, tmp_path / "b", log=quiet)


def test_a_second_ctrl_c_does_not_wait():
    with StopRequests() as stops, stops.on_interrupt():
        signal.raise_signal(signal.SIGINT)
        assert stops.requested == "SIGINT"
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_outside_of_the_steps_ctrl_c_interrupts():
    with StopRequests() as stops:
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        assert stops.requested is None


def test_a_run_folder_that_another_command_trains_in_is_refused(cohort_folder, tmp_path, capsys):
    run = tmp_path / "run"
    run.mkdir()
    argv = ["--data", str(cohort_folder), "--out", str(run)]
    argv += [word for text in TINY for word in ("--set", text)]
    with lock_file(run / ".lock"):
        assert main(argv) == 2
    assert "another command is at work there" in capsys.readouterr().err
    assert sorted(path.name for path in run.iterdir()) == [".lock"]


NO_DEVICES = {
    "cuda": "(built without CUDA|no CUDA GPU is visible)",
    "cuda:7": "CUDA",
    "cud": "expected auto, cpu, cuda, cuda:N or mps",
    "cuda:x": "expected auto, cpu",
    "": "expected auto, cpu",
    "meta": "does not compute on 'meta'",
    "mps": "no Apple GPU",
}


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("name", NO_DEVICES)
def test_a_device_that_is_not_there_is_told_in_our_words_before_anything_is_written(
    name, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(GimpError, match=f"device '{name}' cannot be used: .*{NO_DEVICES[name]}"):
        choose_device(name)
    for extra in ([], ["--dry-run"]):
        assert main(["--out", "run", "--set", f"device='{name}'", *extra]) == 2
        said = capsys.readouterr()
        assert said.err.startswith(f"error: device '{name}' cannot be used: ")
        assert "Traceback" not in said.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_devices_that_are_there():
    assert choose_device("auto") == choose_device("cpu") == torch.device("cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_table_asks_for_its_device_before_it_trains(cohort_folder, tmp_path, capsys):
    argv = ["table1", "--data", str(cohort_folder), "--out", str(tmp_path / "out")]
    assert experiments.main([*argv, "--only", "mean_pool", "--set", "device=cuda"]) == 2
    assert "device 'cuda' cannot be used" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
