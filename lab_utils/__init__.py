"""Tools for the Summarization Fine-Tuning Lab; the notebooks show each idea by hand before they import it from here."""

__version__ = "0.1.0"
