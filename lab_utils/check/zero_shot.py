"""The exercises of notebook 01_zero_shot_baseline."""

from __future__ import annotations
