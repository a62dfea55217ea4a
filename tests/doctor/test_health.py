"""`pronk doctor`: each failure has its line and its remedy, and nothing that is broken breaks the doctor."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from pronk.doctor.health import devices, machine, versions
from pronk.doctor.health.finding import Line
from pronk.doctor.health.processes import Result, Trial
from pronk.doctor.health.secrets import hide

ROOT = Path(__file__).parents[2]
H200 = {
    "version": "2.11.0+cu130", "cuda_build": "13.0", "hip_build": None, "gpus": 1, "cuda_error": "",
    "cuda_driver": "13.0", "gpu": "NVIDIA H200", "capability": [9, 0], "free": 139 * 2**30, "total": 140 * 2**30,
    "architectures": ["sm_80", "sm_90", "sm_100", "compute_120"],
}  # fmt: skip
SMI = ("NVIDIA H200", "580.65.06")


def by_name(lines: list[Line]) -> dict[str, Line]:
    return {line.name: line for line in lines}


def doctor(tmp_path: Path, *arguments: str, first: Path | None = None) -> subprocess.CompletedProcess[str]:
    """`pronk doctor` in a process, without a network; `first`: a folder whose modules come before the installed."""
    environment = os.environ | {
        "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "NO_COLOR": "1", "COLUMNS": "80",
        "PYTHONPATH": os.pathsep.join([*([str(first)] if first else []), str(ROOT / "src")]),
    }  # fmt: skip
    command = [sys.executable, "-m", "pronk", "doctor", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, check=False)


@pytest.mark.slow
def test_this_machine(tmp_path: Path) -> None:
    """Whatever it is: a line each of at most 80 columns that says its status in words."""
    told = doctor(tmp_path)
    rows = told.stdout.splitlines()
    assert all(len(row) <= 80 or max(map(len, row.split())) > 40 for row in rows), rows
    assert "✓ ok     PyTorch" in told.stdout
    assert "✓ ok     bitsandbytes" in told.stdout
    assert ("nothing failed" in told.stdout) is (told.returncode == 0)
    for name in ("Python", "processor", "working folder", "transformers", "bf16", "FP8", "Triton", "attention", "hub"):
        assert any(row[9:].startswith(name) for row in rows), name
    assert told.stdout.count("→") >= told.stdout.count("✗ failed")  # each with its remedy


BROKEN = {
    "it is not there": "raise ModuleNotFoundError('No module named torch')",
    "a library of it is missing": "raise OSError('libcudart.so.13: cannot open shared object file')",
    "it crashes": "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)",
    "it prints and leaves": "print('pronk-trial nonsense'); raise SystemExit(3)",
}


@pytest.mark.slow
@pytest.mark.parametrize("fault", list(BROKEN))
def test_a_broken_pytorch_gives_a_list_with_a_remedy(tmp_path: Path, fault: str) -> None:
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text(BROKEN[fault])
    told = doctor(tmp_path, "--json", first=tmp_path)
    assert told.returncode == 1
    assert "Traceback" not in told.stderr
    found = json.loads(told.stdout)
    assert found["ok"] is False
    assert all(line["remedy"] for line in found["lines"] if line["status"] == "failed")
    lines = {line["name"]: line for line in found["lines"]}
    assert lines["PyTorch"]["status"] == "failed"
    assert "pip install" in lines["PyTorch"]["remedy"]
    assert lines["transformers"]["status"] == "ok"  # the rest of the list is there
    assert lines["hub"]


@pytest.mark.slow
def test_other_broken_libraries_leave_the_rest(tmp_path: Path) -> None:
    modules = ("bitsandbytes", "huggingface_hub", "packaging")
    for module in modules:
        (tmp_path / f"{module}.py").write_text(f"raise RuntimeError('half of {module} is missing')")
    told = doctor(tmp_path, "--json", first=tmp_path)
    assert "Traceback" not in told.stderr
    lines = json.loads(told.stdout)["lines"]
    for module in modules:
        assert any(f"half of {module} is missing" in line["found"] for line in lines)
    assert {line["name"]: line for line in lines}["PyTorch"]["status"] == "ok"


def test_what_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bitsandbytes.py").write_text("import time; time.sleep(60)")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(ROOT / "src")]))
    start = time.perf_counter()
    result = Trial("bitsandbytes", seconds=6).result()
    assert "did not end within 6 s" in result.fault
    assert time.perf_counter() - start < 30


def test_triton_is_tried_by_running_a_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("triton")
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    result = Trial("triton").result()
    assert devices.triton_line(result).status == "ok", result
    wrong = Result({**result.facts, "error": 0.1})
    assert devices.triton_line(wrong).status == "failed"
    assert devices.triton_line(Result({**result.facts, "error": float("nan")})).status == "failed"


# --- CUDA, driver and GPU: facts as machines give them, and what must be said of them

CUDA = [
    ({}, SMI, {"CUDA": "ok", "GPU": "ok"}, ""),
    ({"cuda_build": "12.8"}, SMI, {"CUDA": "ok"}, ""),  # an older build on a newer driver
    ({"cuda_build": "13.2"}, SMI, {"CUDA": "ok"}, ""),  # newer in its minor version alone: runs
    ({"cuda_driver": "12.4", "gpus": 0, "cuda_error": "driver too old"}, ("T4", "550"), {"CUDA": "failed"}, "580"),
    ({"gpus": 0, "cuda_error": "no CUDA-capable device"}, SMI, {"CUDA": "failed"}, "nvidia-smi"),
    ({"gpus": 0, "cuda_driver": ""}, None, {"GPU": "note"}, ""),
    ({"cuda_build": None}, SMI, {"CUDA": "failed"}, "with CUDA"),
    ({"cuda_build": None}, None, {"GPU": "note"}, ""),
    ({"architectures": ["sm_100", "compute_100"]}, SMI, {"GPU": "failed"}, "another build"),
    ({"architectures": ["sm_80", "compute_80"]}, SMI, {"GPU": "ok"}, ""),  # PTX of an older one
    ({"free": 2**30}, SMI, {"GPU": "note"}, "nvidia-smi"),
    ({"gpus": 4}, SMI, {"GPU": "ok"}, ""),
    ({"hip_build": "7.0", "cuda_build": None}, None, {"GPU": "note"}, ""),
]


@pytest.mark.parametrize(("changed", "smi", "expected", "remedy"), CUDA)
def test_cuda_and_driver(changed: dict[str, Any], smi: Any, expected: dict[str, str], remedy: str) -> None:
    lines = by_name(devices.torch_lines(Result({**H200, **changed}), smi))
    assert {name: lines[name].status for name in expected} == expected
    assert remedy in " ".join(line.remedy for line in lines.values())
    assert all(line.remedy for line in lines.values() if line.status == "failed")


TRIED = [
    (devices.bf16_line, {"device": "cuda", "native": True, "error": 0.004}, "ok"),
    (devices.bf16_line, {"device": "cuda", "native": False, "error": 0.004}, "note"),
    (devices.bf16_line, {"device": "cuda", "native": True, "error": 0.5}, "failed"),
    (devices.fp8_line, {"device": "cuda", "capability": [7, 5]}, "note"),
    (devices.fp8_line, {"device": "cuda", "error": 0.04}, "ok"),
    (devices.fp8_line, {"device": "cuda", "error": float("nan")}, "failed"),
    (devices.bitsandbytes_line, {"nf4": 0.09, "int8": 0.01}, "ok"),
    (devices.bitsandbytes_line, {"nf4": 0.09, "int8": 1.0}, "failed"),
    (devices.attention_line, {"chosen": "FlashAttention 2 (PyTorch 2.11)", "passed_over": []}, "ok"),
    (devices.attention_line, {"chosen": "FlashAttention 2", "passed_over": [["cuDNN", "is wrong"]]}, "note"),
    (devices.attention_line, {}, "note"),
]


@pytest.mark.parametrize(("line", "facts", "status"), TRIED)
def test_what_was_tried(line: Any, facts: dict[str, Any], status: str) -> None:
    assert line(Result(facts)).status == status
    assert line(Result({}, "it crashed (SIGSEGV)")).status == "failed"


# --- versions: one place says what pronk needs


def test_ranges_come_from_the_package_itself() -> None:
    asked = {line.name: line for line in versions.version_lines()}
    assert {"torch", "transformers", "peft", "numpy"} <= set(asked)
    assert not [line for line in asked.values() if line.status == "failed" and line.name in ("torch", "numpy")]
    assert versions.library_line("torch", ">=99").status == "failed"
    assert 'pip install -U "torch>=99"' in versions.library_line("torch", ">=99").remedy
    assert versions.library_line("no-such-library-at-all", ">=1").found == "not installed"


def test_newer_than_tested_is_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    for found, status in (("5.17.0", "ok"), ("5.23.9", "ok"), ("5.24.0", "note"), ("6.0.0", "failed"), ("?", "failed")):
        monkeypatch.setattr(versions, "installed", lambda _, found=found: found)
        assert versions.library_line("transformers", ">=5.17,<6").status == status


def test_what_is_tested_lies_in_the_range_of_pyproject() -> None:
    """The one figure that pyproject does not hold must not contradict it."""
    import tomllib

    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = [*pyproject["dependencies"], *pyproject["optional-dependencies"]["dev"]]
    asked = {one.name: one for one in map(Requirement, lines)}
    for name, (oldest, newest) in versions.TESTED.items():
        lower = next(part for part in asked[name].specifier if part.operator == ">=")
        assert Version(lower.version) == Version(oldest)
        assert asked[name].specifier.contains(f"{newest}.0")


# --- folders and places


def test_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(machine, "folders", lambda: {"working folder": tmp_path, "hub cache": tmp_path / "new" / "hub"})
    assert [line.status for line in machine.folder_lines()] == ["ok", "ok"] or machine.shutil.disk_usage(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file"]  # nothing is left behind
    monkeypatch.setattr(machine, "folders", lambda: {"hub cache": tmp_path / "file" / "hub"})
    (line,) = machine.folder_lines()
    assert line.status == "failed"
    assert "HF_HUB_CACHE" in line.remedy


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "folders", lambda: {"pronk's cache": tmp_path})
    for free, status in ((2**30, "failed"), (10 * 2**30, "note"), (100 * 2**30, "ok")):
        usage = machine.shutil._ntuple_diskusage(2**40, 2**40 - free, free)  # type: ignore[attr-defined]
        monkeypatch.setattr(machine.shutil, "disk_usage", lambda _, usage=usage: usage)
        (line,) = machine.folder_lines()
        assert line.status == status
        assert ("PRONK_CACHE" in line.remedy) == (status != "ok")


def test_wsl_and_colab(monkeypatch: pytest.MonkeyPatch) -> None:
    assert machine.place_lines({}, gpu=True) == []
    monkeypatch.setattr(machine.platform, "release", lambda: "6.6.87.2-microsoft-standard-WSL2")
    (line,) = machine.place_lines({}, gpu=False)
    assert "wsl --update" in line.remedy
    monkeypatch.setattr(machine.platform, "release", lambda: "6.6.87")
    (line,) = machine.place_lines({"COLAB_RELEASE_TAG": "x"}, gpu=False)
    assert "Change runtime type" in line.remedy
    assert "--copy-to" in line.found


# --- how it reads


def test_a_line_wraps_and_its_remedy_stands_below() -> None:
    line = Line("CUDA", "failed", "word " * 30, "do " * 40 + "x" * 100)
    rows = line.text().splitlines()
    assert rows[0].startswith("✗ failed CUDA ")
    assert all(len(row) <= 80 for row in rows if "xxx" not in row)
    assert "         → do do" in line.text()
    assert any("x" * 100 in row for row in rows)  # what is copied is never broken


def test_a_very_long_token_is_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_TOKEN", "x" * 5000)
    assert hide(f"said {'x' * 5000}") == "said (hidden)"


def test_secrets_are_hidden() -> None:
    assert hide("said: s3cr3t-value!", {"s3cr3t-value"}) == "said: (hidden)!"
    assert hide("Authorization: Bearer abc.def and hf_abcdefgh12345", ()) == "Authorization: (hidden) and (hidden)"
    assert hide("http://user:password@proxy:8080", ()) == "http://(hidden)@proxy:8080"
    assert hide("a\x1b[2Jb\x00", ()) == "a[2Jb"
