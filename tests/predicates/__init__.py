"""Tests of exemption."""
