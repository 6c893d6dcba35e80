"""Runs in object stores: a folder of this machine mirrors the objects of a run."""
