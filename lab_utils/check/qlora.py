"""The exercises of notebook 04_qlora."""

from __future__ import annotations
