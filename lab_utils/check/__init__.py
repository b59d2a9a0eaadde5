"""Exercises that check themselves: `check.lora_forward(mine)` says passed, almost with a hint that grows, or not attempted.

Each notebook's exercises stand in a module of their own. A check takes seconds and needs no file, no network and no other package.
"""

from lab_utils.check.evaluation import bootstrap_interval as bootstrap_interval
from lab_utils.check.evaluation import claim as claim
from lab_utils.check.evaluation import documents_needed as documents_needed
from lab_utils.check.evaluation import protocol_range as protocol_range
from lab_utils.check.evaluation import sign_flip_test as sign_flip_test
from lab_utils.check.evaluation import unfair as unfair
from lab_utils.check.exercise import EXERCISES as EXERCISES
from lab_utils.check.exercise import note_in as note_in
from lab_utils.check.full import learning_rate_schedule as learning_rate_schedule
from lab_utils.check.full import mask_labels as mask_labels
from lab_utils.check.full import mean_loss as mean_loss
from lab_utils.check.full import memory_gb as memory_gb
from lab_utils.check.full import optimizer_steps as optimizer_steps
from lab_utils.check.full import smallest_moving_rate as smallest_moving_rate
from lab_utils.check.lora import break_even as break_even
from lab_utils.check.lora import count_lora as count_lora
from lab_utils.check.lora import effective_rank as effective_rank
from lab_utils.check.lora import lora_forward as lora_forward
from lab_utils.check.lora import merge as merge
from lab_utils.check.lora import within_budget as within_budget
from lab_utils.check.qlora import base_gb as base_gb
from lab_utils.check.qlora import bits_per_weight as bits_per_weight
from lab_utils.check.qlora import int4 as int4
from lab_utils.check.qlora import nf4_block as nf4_block
from lab_utils.check.qlora import qlora_gradients as qlora_gradients
from lab_utils.check.qlora import what_to_keep as what_to_keep
from lab_utils.check.zero_shot import fool_rouge as fool_rouge
from lab_utils.check.zero_shot import length_limit as length_limit
from lab_utils.check.zero_shot import model_reads as model_reads
from lab_utils.check.zero_shot import prompt_choice as prompt_choice
from lab_utils.check.zero_shot import rouge1 as rouge1
from lab_utils.check.zero_shot import rouge_l as rouge_l
