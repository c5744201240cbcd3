"""Tests of what blocked requests get."""
