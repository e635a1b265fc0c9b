"""Tests; the tree mirrors the rooms of the service."""
