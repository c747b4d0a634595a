"""Counters of energy on files and libraries that stand for those of machines that have them."""

import ctypes
import subprocess
import sys
import threading
import time

import pytest

from bgert.energy import Meter, Missing, meter_for
from bgert.energy.ina3221 import Ina3221
from bgert.energy.nvml import Nvml, uuid_of
from bgert.energy.rapl import Rapl

WRAPS = 262_143_328_850  # of a real package zone


class PowerCap:
    """Linux's folder of RAPL zones. In sysfs the zones of a socket lie beside it there, as links."""

    def __init__(self, root):
        self.folder = root / "sys/class/powercap"
        self.folder.mkdir(parents=True)
        (self.folder / "intel-rapl").mkdir()  # the control type itself

    def zone(self, number, name, joules=0.0):
        folder = self.folder / f"intel-rapl:{number}"
        folder.mkdir(exist_ok=True)
        (folder / "name").write_text(name + "\n")
        (folder / "max_energy_range_uj").write_text(f"{WRAPS}\n")
        (folder / "energy_uj").write_text(f"{round(joules * 1e6) % WRAPS}\n")
        return folder


@pytest.fixture
def powercap(tmp_path):
    return PowerCap(tmp_path)


def test_rapl_adds_packages_and_memory_and_nothing_twice(powercap, tmp_path):
    zones = {"0": "package-0", "0:0": "core", "0:1": "dram", "1": "package-1", "1:0": "dram", "2": "psys"}
    for number, name in zones.items():
        powercap.zone(number, name, 100.0)
    mmio = powercap.folder / "intel-rapl-mmio:0"  # the same package by another door
    mmio.mkdir()
    for name, text in (("name", "package-0"), ("energy_uj", "1"), ("max_energy_range_uj", "9")):
        (mmio / name).write_text(text)
    rapl = Rapl(tmp_path)
    assert rapl.read() == 0
    for place, (number, name) in enumerate(zones.items()):
        powercap.zone(number, name, 100.0 + 10**place)
    assert rapl.read() == pytest.approx(1 + 100 + 1000 + 10_000)
    assert rapl.name == "RAPL package-0 + dram + package-1 + dram"
    assert rapl.covers == "the processors' packages and memory"


def test_rapl_wraps_around(powercap, tmp_path):
    almost = WRAPS / 1e6 - 5
    powercap.zone("0", "package-0", almost)
    rapl = Rapl(tmp_path)
    powercap.zone("0", "package-0", almost + 12)
    assert int((powercap.folder / "intel-rapl:0/energy_uj").read_text()) == pytest.approx(7e6, abs=2)
    assert rapl.read() == pytest.approx(12, abs=1e-5)
    powercap.zone("0", "package-0", almost + 20)
    assert rapl.read() == pytest.approx(20, abs=1e-5)


def test_rapl_that_may_not_be_read_says_so(powercap, tmp_path, monkeypatch):
    zone = powercap.zone("0", "package-0")
    opened = type(zone).read_text

    def only_root(path, *arguments, **options):
        if path.name == "energy_uj":
            raise PermissionError(13, "Permission denied")
        return opened(path, *arguments, **options)

    monkeypatch.setattr(type(zone), "read_text", only_root)  # tests run as root too, who may read all
    with pytest.raises(OSError, match=r"energy_uj may not be read: run as root"):
        Rapl(tmp_path)


@pytest.mark.parametrize("zones", [{}, {"0": "psys"}, {"0:0": "dram"}])
def test_no_rapl(powercap, tmp_path, zones):
    for number, name in zones.items():
        powercap.zone(number, name)
    with pytest.raises(OSError, match="no RAPL here"):
        Rapl(tmp_path)


class Jetson:
    """INA3221 monitors in hwmon."""

    def __init__(self, root):
        self.folder = root / "sys/bus/i2c/drivers/ina3221"
        self.now = 50.0

    def rail(self, monitor, channel, label, volts, amperes):
        folder = self.folder / monitor / "hwmon/hwmon3"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"in{channel}_label").write_text(label + "\n")
        (folder / f"in{channel}_input").write_text(f"{round(1000 * volts)}\n")
        (folder / f"curr{channel}_input").write_text(f"{round(1000 * amperes)}\n")
        return folder

    def clock(self):
        return self.now


def test_jetsons_rail_that_feeds_all_is_integrated(tmp_path):
    jetson = Jetson(tmp_path)
    jetson.rail("1-0040", 1, "VDD_IN", 5.0, 1.0)
    jetson.rail("1-0040", 2, "VDD_CPU_GPU_CV", 5.0, 0.5)
    folder = jetson.rail("1-0040", 3, "VDD_SOC", 5.0, 0.25)
    (folder / "in7_label").write_text("sum of shunt voltages\n")
    (rail,) = Ina3221.rails(tmp_path, clock=jetson.clock)
    assert (rail.name, rail.covers) == ("INA3221 VDD_IN", "the whole module")
    joules = [rail.read()]
    for amperes in (1.0, 3.0, 3.0):  # 5 W, then up to 15 W, then at 15 W: two seconds each
        jetson.now += 2
        jetson.rail("1-0040", 1, "VDD_IN", 5.0, amperes)
        joules.append(rail.read())
    assert joules == pytest.approx([0, 10, 30, 60])


def test_rails_side_by_side_are_not_added_up(tmp_path):
    """As on an AGX Orin, where no rail is named as the one that feeds the others."""
    jetson = Jetson(tmp_path)
    for place, (monitor, channel, label) in enumerate(
        [("1-0040", 1, "VDD_GPU_SOC"), ("1-0040", 2, "VDD_CPU_CV"), ("1-0041", 2, "VDDQ_VDD2_1V8AO")], 1
    ):
        jetson.rail(monitor, channel, label, 5.0, place)
    (jetson.folder / "1-0040/hwmon/hwmon3/curr2_input").unlink()
    rails = Ina3221.rails(tmp_path, clock=jetson.clock)
    jetson.now += 1
    assert {rail.name: rail.read() for rail in rails} == {
        "INA3221 VDD_GPU_SOC": 5.0,
        "INA3221 VDDQ_VDD2_1V8AO": 15.0,
    }
    assert rails[0].covers == "the rail VDD_GPU_SOC alone"


def test_a_channel_that_is_off_is_left_out_and_where_all_are_it_says_so(tmp_path, monkeypatch):
    jetson = Jetson(tmp_path)
    folder = jetson.rail("1-0040", 1, "A", 5.0, 1.0)
    jetson.rail("1-0040", 2, "B", 5.0, 1.0)
    (folder / "curr1_input").unlink()
    (folder / "curr1_input").mkdir()  # as little readable as a channel that is switched off, for root too
    assert [rail.name for rail in Ina3221.rails(tmp_path)] == ["INA3221 B"]
    (folder / "in2_input").unlink()
    with pytest.raises(OSError, match="in2_input cannot be read"):
        Ina3221.rails(tmp_path)
    with pytest.raises(OSError, match="no INA3221"):
        Ina3221.rails(tmp_path / "elsewhere")


NVML_C = r"""
#include <stdio.h>
#include <string.h>
static unsigned long long energy[3] = {1000000, 2000000, 3000000};
static const char *uuids[3] = {"GPU-ffffffff-0000-0000-0000-000000000000",
                               "GPU-10111213-1415-1617-1819-1a1b1c1d1e1f",
                               "GPU-00010203-0405-0607-0809-0a0b0c0d0e0f"};
static int started;
int nvmlInit_v2(void) { started = 1; return 0; }
int nvmlDeviceGetHandleByUUID(const char *uuid, void **device) {
  if (!started) return 1;
  for (int i = 0; i < 3; ++i)
    if (!strcmp(uuid, uuids[i])) { *device = &energy[i]; return 0; }
  return 6;
}
int nvmlDeviceGetTotalEnergyConsumption(void *device, unsigned long long *value) {
  if (device == (void *)&energy[0]) return 3;
  *value = *(unsigned long long *)device;
  return 0;
}
const char *nvmlErrorString(int code) {
  return code == 3 ? "Not Supported" : code == 6 ? "Not Found" : "Uninitialized";
}
void spend(int device, unsigned long long millijoules) { energy[device] += millijoules; }
/* CUDA's driver: two devices visible, in an order of their own. */
static int begun;
int cuInit(unsigned flags) { begun = flags == 0; return 0; }
int cuDeviceGet(int *device, int number) {
  if (!begun) return 3;
  if (number > 1) return 101;
  *device = number + 40;
  return 0;
}
int cuDeviceGetUuid_v2(unsigned char *uuid, int device) {
  for (int i = 0; i < 16; ++i) uuid[i] = (unsigned char)(16 * (device - 40) + i);
  return 0;
}
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """A library with the functions of NVML and of CUDA's driver that are called, compiled, by their C signatures."""
    folder = tmp_path_factory.mktemp("nvml")
    (folder / "fake.c").write_text(NVML_C)
    command = ["cc", "-shared", "-fPIC", "-o", str(folder / "fake.so"), str(folder / "fake.c")]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("no C compiler")
    return ctypes.CDLL(str(folder / "fake.so"))


@pytest.mark.parametrize(
    ("device", "gpu", "name"),
    [
        ("cuda:0", 2, "GPU-00010203-0405-0607-0809-0a0b0c0d0e0f"),
        ("cuda:1", 1, "GPU-10111213-1415-1617-1819-1a1b1c1d1e1f"),
        ("tensorrt", 2, "GPU-00010203-0405-0607-0809-0a0b0c0d0e0f"),
    ],
)
def test_nvml_counts_the_gpu_that_cuda_has_under_the_number(library, device, gpu, name):
    nvml = Nvml(device, nvml=library, cuda=library)
    assert nvml.name == f"NVML {name}"
    before = nvml.read()
    library.spend(3 - gpu, ctypes.c_ulonglong(777))
    library.spend(gpu, ctypes.c_ulonglong(5432))
    assert nvml.read() - before == pytest.approx(5.432)


def test_nvml_adds_several_gpus(library):
    nvml = Nvml("cuda:0,cuda:1", nvml=library, cuda=library)
    library.spend(1, ctypes.c_ulonglong(1000))
    library.spend(2, ctypes.c_ulonglong(2000))
    assert nvml.read() == pytest.approx(3)
    assert nvml.covers == "the GPUs' boards"


def test_nvml_says_what_is_missing(library):
    with pytest.raises(OSError, match=r"cuDeviceGet of device 7 failed \(101\)"):
        Nvml("cuda:7", nvml=library, cuda=library)
    assert uuid_of(1, library) == "GPU-10111213-1415-1617-1819-1a1b1c1d1e1f"


def test_a_gpu_that_does_not_count_and_one_that_nvml_does_not_know(library):
    class Other:
        def __init__(self, first):
            self.first = first

        def __getattr__(self, name):
            return getattr(library, name)

        def cuDeviceGetUuid_v2(self, raw, device):  # noqa: N802
            ctypes.cast(raw, ctypes.POINTER(ctypes.c_ubyte * 16)).contents[:] = self.first + [0] * 12
            return 0

    with pytest.raises(OSError, match="nvmlDeviceGetTotalEnergyConsumption: Not Supported"):
        Nvml("cuda:0", nvml=library, cuda=Other([255] * 4))
    with pytest.raises(OSError, match="nvmlDeviceGetHandleByUUID: Not Found"):
        Nvml("cuda:0", nvml=library, cuda=Other([1, 2, 3, 4]))


def entries(meter, calls=2, tokens=10, work=lambda: None):
    with meter.watch() as watched:
        work()
    return watched.facts(calls, tokens)


def test_what_tells_of_which_device(tmp_path, library, monkeypatch):
    monkeypatch.setattr("ctypes.CDLL", lambda name: (_ for _ in ()).throw(OSError(name)))
    nothing = entries(meter_for("cpu", root=tmp_path))
    assert [entry["counter"] for entry in nothing] == ["RAPL", "INA3221"]
    assert all(entry["why"] and entry["joules"] is None for entry in nothing)
    names = [entry["counter"] for entry in entries(meter_for("cuda:0", root=tmp_path))]
    assert names == ["NVML", "RAPL", "INA3221"]
    powercap = PowerCap(tmp_path)
    powercap.zone("0", "package-0")
    assert [entry["counter"] for entry in entries(meter_for("cpu", root=tmp_path))] == ["RAPL package-0"]
    board, processor = entries(meter_for("cuda:0", root=tmp_path))
    assert "libcuda.so.1 is not there" in board["why"]
    assert processor["counter"] == "RAPL package-0"
    board, processor = entries(meter_for("cuda:1", root=tmp_path, nvml=library, cuda=library))
    assert board["counter"].startswith("NVML GPU-1011")
    Jetson(tmp_path).rail("1-0040", 1, "VDD_IN", 5.0, 1.0)
    for device in ("cpu", "tensorrt"):
        (rail,) = entries(meter_for(device, root=tmp_path))
        assert rail["counter"] == "INA3221 VDD_IN"


def test_joules_a_call_and_tokens_a_joule(powercap, tmp_path):
    powercap.zone("0", "package-0", 10)

    def work():
        time.sleep(0.1)
        powercap.zone("0", "package-0", 16)

    (found,) = entries(meter_for("cpu", root=tmp_path), calls=4, tokens=300, work=work)
    assert (found["joules"], found["joules_a_call"], found["tokens_a_joule"]) == (6, 1.5, 50)
    assert found["watts"] == pytest.approx(6 / found["seconds"], rel=0.05)
    assert found["why"] is None


def test_too_short_a_time_says_nothing(powercap, tmp_path):
    powercap.zone("0", "package-0", 10)
    (found,) = entries(meter_for("cpu", root=tmp_path), work=lambda: powercap.zone("0", "package-0", 11))
    assert found["joules"] is None
    assert "it takes 0.05 s to say (--calls)" in found["why"]


def test_a_counter_that_stands_still_or_fails_says_nothing(powercap, tmp_path):
    zone = powercap.zone("0", "package-0", 10)
    meter = meter_for("cpu", root=tmp_path)
    (found,) = entries(meter, work=lambda: time.sleep(0.06))
    assert (found["joules"], found["why"]) == (None, "it stood still")
    (found,) = entries(meter, work=lambda: (time.sleep(0.06), (zone / "energy_uj").unlink()))
    assert found["joules"] is None
    assert "energy_uj cannot be read" in found["why"]


def test_a_counter_is_read_again_in_time_and_no_thread_stays(monkeypatch):
    class Sampled:
        name, covers, shortest, period = "x", "y", 0.0, 0.01

        def __init__(self):
            self.reads = 0

        def read(self):
            self.reads += 1
            return float(self.reads)

    counter = Sampled()
    before = threading.active_count()
    (missing, found) = entries(Meter([Missing("NVML", "gone"), counter]), work=lambda: time.sleep(0.5))
    assert counter.reads > 5
    assert found["joules"] == counter.reads - 1
    assert missing["why"] == "gone"
    assert threading.active_count() == before


def test_importing_bgert_loads_no_counter():
    code = (
        "import sys, bgert; from bgert import *; sys.exit(any(name.startswith('bgert.energy') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
