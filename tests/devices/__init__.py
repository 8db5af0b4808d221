"""Tests of the device kit, one module for each of its own."""
