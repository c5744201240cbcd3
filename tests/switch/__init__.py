"""Tests of what the state is now."""
