"""The exercises of notebook 02_full_fine_tuning."""

from __future__ import annotations
