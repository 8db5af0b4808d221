"""The hot path: everything that happens per MMIO access, in C (see api.h)."""
