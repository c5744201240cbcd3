"""Tests of README, docstrings, imports and the spec."""
