"""Diagnose on-policy distillation."""
