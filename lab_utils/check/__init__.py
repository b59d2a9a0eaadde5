"""Exercises that check themselves: `check.lora_forward(mine)` says passed, almost with a hint that grows, or not attempted.

Each notebook's exercises stand in a module of their own. A check takes seconds and needs no file, no network and no other package.
"""

from lab_utils.check.exercise import EXERCISES as EXERCISES
from lab_utils.check.lora import break_even as break_even
from lab_utils.check.lora import count_lora as count_lora
from lab_utils.check.lora import effective_rank as effective_rank
from lab_utils.check.lora import lora_forward as lora_forward
from lab_utils.check.lora import merge as merge
from lab_utils.check.lora import within_budget as within_budget
