"""Tests of the documents and their examples, docstrings, imports and the spec."""
