"""Encoders in and out: a run's, released weights, and exports."""
