"""Tests of the middleware as a whole."""
