"""What the lab does to a model holds for every architecture that the recipes name, on shrunken models of the same build."""

import json

import pytest
import shrunken
import torch
import yaml
from bitsandbytes.nn import Linear4bit, Linear8bitLt

from lab_utils import config, data, environment, generation, methods, models, prompts, training
from lab_utils.batching import IGNORED
from lab_utils.environment import Precision
from lab_utils.errors import LabError
