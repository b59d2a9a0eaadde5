"""What this machine is, what works on it, and which recipe, methods and precision fit: looked at, judged and printed apart."""

from lab_utils.doctor.reporting import report as report
