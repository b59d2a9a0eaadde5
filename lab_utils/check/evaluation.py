"""The exercises of notebook 05_evaluation."""

from __future__ import annotations
