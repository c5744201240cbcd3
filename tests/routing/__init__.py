"""Tests of finding the route."""
