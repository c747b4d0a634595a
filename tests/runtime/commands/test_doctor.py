"""`bgert doctor`: true, for people and for programs, and never a failure of its own."""

import ctypes
import json
import os
import re
import subprocess
import sys
from importlib import metadata

import pytest

from bgert import Encoder, machine
from bgert.backends import availability
from bgert.commands import doctor
from bgert.commands.main import main
from bgert.cpu_count import available_cpus

ALL_WELL = dict.fromkeys(availability.DEVICES)


@pytest.fixture
def reasons(monkeypatch):
    """Why each device is not available, for tests of the report."""
    found = {**ALL_WELL, "cuda": "no cuda", "tensorrt": "no tensorrt", "tensorrt-rtx": "no rtx"}
    monkeypatch.setattr(availability, "why_unavailable", found.get)
    return found


def report(capsys, status=0):
    assert main(["doctor", "--json"]) == status
    return json.loads(capsys.readouterr().out)


def test_what_it_says_is_what_an_encoder_gets(demo_folder, capsys):
    found = report(capsys)
    opened = Encoder(demo_folder, device="cpu").encode("a").info
    assert [one["device"] for one in found["devices"]] == ["cpu", "cuda", "tensorrt", "tensorrt-rtx"]
    assert found["devices"][0] == {"device": "cpu", "available": True, "reason": None}
    assert f"{found['cpu']['kernels']} kernels" in opened.engine
    assert f"onnxruntime {found['packages']['onnxruntime']}" in opened.engine
    assert found["cpu"]["usable_cores"] == available_cpus()
    assert found["bgert"] == metadata.version("bgert")


def test_keys_stay(reasons, capsys):
    found = report(capsys)
    assert found["version"] == 1
    keys = "version bgert system cpu memory gpu devices packages extras cache environment"
    assert set(found) >= set(keys.split())
    assert set(found["system"]) >= {"system", "release", "machine", "libc", "python", "implementation", "free_threaded"}
    cpu = "name instructions cores usable_cores omp_num_threads threads kernels"
    assert set(found["cpu"]) >= set(cpu.split())
    assert set(found["memory"]) == {"total", "available", "limit"}
    assert set(found["gpu"]) == {"driver", "list", "error"}
    assert set(found["cache"]) == {"folder", "exists", "writable"}


def test_kernels_before_a_session_is_opened_are_those_that_it_gets():
    code = "from bgert.backends.onnx_cpu import kernels_name; print(kernels_name())"
    for wanted in ("baseline", "nonsense"):
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, "BGERT_KERNELS": wanted}
        )
        assert done.stdout.strip() == {"baseline": "baseline", "nonsense": ""}[wanted]


def test_unknown_kernels_make_the_cpu_unavailable_and_the_status_1(monkeypatch, capsys):
    monkeypatch.setenv("BGERT_KERNELS", "nonsense")
    monkeypatch.setattr(doctor, "_devices", lambda _: real(False)[:1])
    found = report(capsys, status=1)
    (cpu,) = found["devices"]
    assert not cpu["available"]
    assert "BGERT_KERNELS" in cpu["reason"]
    assert found["environment"]["BGERT_KERNELS"] == "nonsense"


real = doctor._devices


def test_a_missing_engine_names_the_extra(monkeypatch, tmp_path):
    """In the words of opening a model, from a process where ONNX Runtime cannot be imported."""
    (tmp_path / "onnxruntime.py").write_text("raise ImportError('not here')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    reason = availability.why_unavailable("cpu")
    assert "not here" in reason
    assert "install the extra `cpu` (README, Install)" in reason


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "signal 9"),
        ("import os; os._exit(3)", "status 3"),
        ("raise RuntimeError('odd')", "odd"),
        ("print('=')\nimport os; os._exit(0)", "status 0"),
    ],
)
def test_an_engine_that_ends_the_process_is_a_reason(monkeypatch, tmp_path, source, said):
    (tmp_path / "onnxruntime.py").write_text(source)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert said in availability.why_unavailable("cpu")


def test_without_a_gpu_nothing_is_sold(monkeypatch, reasons, capsys):
    monkeypatch.setattr(machine, "gpus", lambda: {"driver": None, "list": [], "error": "no driver"})
    monkeypatch.setattr("bgert.backends.cuda.check.nvidia_device_present", lambda: False)
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"^device cpu +can run models$", out, re.MULTILINE)
    assert re.search(r"^device cuda +no: there is no NVIDIA GPU here. With one: no cuda$", out, re.MULTILINE)
    monkeypatch.setattr("bgert.backends.cuda.check.nvidia_device_present", lambda: True)
    assert report(capsys)["devices"][1]["reason"] == "no cuda"


def test_a_part_that_fails_is_reported_and_the_rest_stands(monkeypatch, reasons, capsys):
    for name in ("system", "processor", "memory", "gpus"):
        monkeypatch.setattr(machine, name, lambda: 1 / 0)
    monkeypatch.setattr(doctor, "_missing", lambda _: 1 / 0)
    monkeypatch.setattr(doctor, "_cache", lambda: 1 / 0)
    found = report(capsys)
    for name in ("system", "cpu", "memory", "gpu", "extras", "cache"):
        assert found[name] == {"error": "ZeroDivisionError: division by zero"}
    assert main(["doctor"]) == 0
    assert "ZeroDivisionError" in capsys.readouterr().out


def test_missing_packages_of_an_extra(monkeypatch, reasons, capsys):
    requires = ["numpy>=1.24", 'surely-not-here>=2; extra == "gpu"', "numpy; extra == 'gpu'", 'x ; extra == "cpu"']
    monkeypatch.setattr(metadata, "requires", lambda _: requires)
    extras = report(capsys)["extras"]
    assert extras["gpu"] == ["surely-not-here>=2"]
    assert extras["serve"] == []


def test_the_cache_folder_and_who_it_belongs_to(monkeypatch, tmp_path, reasons, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("BGERT_CACHE", str(tmp_path / "a" / "b"))
    monkeypatch.setenv("BGERT_API_KEY", "very secret")
    found = report(capsys)
    assert found["cache"] == {"folder": "~/a/b", "exists": False, "writable": True}
    assert not (tmp_path / "a").exists()
    assert "very secret" not in json.dumps(found)
    assert found["environment"]["BGERT_API_KEY"] == "(set)"
    (tmp_path / "a").write_text("a file where a folder should be")
    assert report(capsys)["cache"]["writable"] is False


class FakeNvml:
    """libnvidia-ml with one device."""

    def __init__(self, **codes):
        self.codes = codes
        self.ended = 0

        def error_string(code):
            return f"code {code}".encode()

        self.nvmlErrorString = error_string

    def __getattr__(self, name):
        def call(*arguments):
            if code := self.codes.get(name, 0):
                return code
            if name == "nvmlShutdown":
                self.ended += 1
            if name == "nvmlSystemGetDriverVersion":
                arguments[0].value = b"580.1"
            if name == "nvmlDeviceGetName":
                arguments[1].value = b"NVIDIA Something"
            if name == "nvmlDeviceGetCount_v2":
                ctypes.cast(arguments[0], ctypes.POINTER(ctypes.c_uint))[0] = 1
            if name == "nvmlDeviceGetMemoryInfo":
                ctypes.cast(arguments[1], ctypes.POINTER(ctypes.c_ulonglong))[0] = 80 << 30
            if name == "nvmlDeviceGetCudaComputeCapability":
                for where, value in zip(arguments[1:], (9, 0), strict=True):
                    ctypes.cast(where, ctypes.POINTER(ctypes.c_int))[0] = value
            return 0

        return call


def test_gpus_by_nvml():
    library = FakeNvml()
    found = machine.gpus(library)
    assert found["driver"] == "580.1"
    assert found["error"] is None
    (gpu,) = found["list"]
    assert (gpu["name"], gpu["memory"], gpu["compute_capability"]) == ("NVIDIA Something", 80 << 30, "9.0")
    assert library.ended == 1


def test_a_driver_that_fails_is_no_gpu():
    assert machine.gpus(FakeNvml(nvmlInit_v2=9)) == {"driver": None, "list": [], "error": "NVML: code 9"}
    assert machine.gpus(FakeNvml(nvmlDeviceGetCount_v2=999))["error"] == "NVML: code 999"
    (gpu,) = machine.gpus(FakeNvml(nvmlDeviceGetName=3))["list"]
    assert (gpu["name"], gpu["compute_capability"]) == (None, "9.0")


def test_memory_is_what_the_cgroup_leaves(tmp_path, monkeypatch):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "memory.max").write_text("1000\n")
    (tmp_path / "a" / "b" / "memory.max").write_text("max\n")
    real_read = machine._read
    monkeypatch.setattr(
        machine, "_read", lambda path: "0::/a/b\n" if str(path) == "/proc/self/cgroup" else real_read(path)
    )
    assert machine.memory_limit(tmp_path, 5000) == 1000
    assert machine.memory_limit(tmp_path, 500) is None
