"""E4M3 for the target `cuda-fp8`: its arithmetic, which matrices afford it, and a stand-in for the GPU."""
