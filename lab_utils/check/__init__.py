"""Exercises that check themselves: `check.lora_forward(mine)` says passed, almost with a hint that grows, or not attempted.

Each notebook's exercises stand in a module of their own. A check takes seconds and needs no file, no network and no other package.
"""

from lab_utils.check.exercise import EXERCISES as EXERCISES
from lab_utils.check.lora import lora_forward as lora_forward
from lab_utils.check.qlora import base_gb as base_gb
from lab_utils.check.qlora import bits_per_weight as bits_per_weight
from lab_utils.check.qlora import int4 as int4
from lab_utils.check.qlora import nf4_block as nf4_block
from lab_utils.check.qlora import qlora_gradients as qlora_gradients
from lab_utils.check.qlora import what_to_keep as what_to_keep
