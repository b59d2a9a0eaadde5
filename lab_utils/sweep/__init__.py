"""Many trainings from one grid: its points, one record for each, and a table whose best is chosen on validation data."""

from lab_utils.sweep.grid import Point as Point
from lab_utils.sweep.grid import command as command
from lab_utils.sweep.grid import listing as listing
from lab_utils.sweep.grid import merging as merging
from lab_utils.sweep.grid import numbers as numbers
from lab_utils.sweep.grid import points as points
from lab_utils.sweep.records import keep_plan as keep_plan
from lab_utils.sweep.running import run as run
from lab_utils.sweep.table import report as report
