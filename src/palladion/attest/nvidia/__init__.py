"""NVIDIA GPUs in confidential computing mode: SPDM measurements, signed by the GPU, beside reference values."""
