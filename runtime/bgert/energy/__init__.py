"""Energy by the counters that this machine has: RAPL, NVML, Jetson's INA3221. What none counts is not estimated."""

from bgert.energy.meter import Counter, Meter, Missing, Watch, meter_for

__all__ = ["Counter", "Meter", "Missing", "Watch", "meter_for"]
