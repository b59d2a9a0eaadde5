import time

import numpy as np
import psutil
import pytest

from lab_utils import environment, memory
from lab_utils.environment import Machine


@pytest.fixture
def on_cpu(monkeypatch):
    monkeypatch.setattr(environment, "machine", lambda: Machine("local", "cpu", "CPU (x86_64)", 2, 16.0))


def resident_gb() -> float:
    environment.return_memory()  # what earlier tests have freed would be taken again, unseen
    return psutil.Process().memory_info().rss / 1e9


def in_bytes(ledger: memory.Ledger) -> list:
    return [pytest.approx(part * 1e9) for part in (ledger.weights, ledger.gradients, ledger.optimizer, ledger.total)]


def test_full_fine_tuning_costs_16_bytes_a_parameter():
    assert in_bytes(memory.ledger(1000, 1000)) == [4000, 4000, 8000, 16000]


def test_full_fine_tuning_is_float32_whatever_the_frozen_format():
    assert memory.ledger(1000, 1000, "bfloat16") == memory.ledger(1000, 1000, "float32")


@pytest.mark.parametrize("weights, stored", [("float32", 4000), ("bfloat16", 2000), ("float16", 2000)])
def test_frozen_weights_cost_their_storage_alone_and_trained_ones_16_bytes(weights, stored):
    assert in_bytes(memory.ledger(1000, 10, weights)) == [stored + 40, 40, 80, stored + 160]


def test_nf4_stores_4_bits_and_an_eighth_of_a_bit_of_constants():
    # 200 bfloat16 weights, 800 quantized ones of 0.515875 bytes, 10 trained ones
    assert in_bytes(memory.ledger(1000, 10, "bfloat16", quantized=800)) == [852.7, 40, 80, 972.7]


def test_int8_stores_one_byte():
    assert in_bytes(memory.ledger(1000, 10, "bfloat16", quantized=800, quantization="int8")) == [1240, 40, 80, 1360]


def test_quantizing_saves_nothing_on_what_is_trained():
    plain, quantized = memory.ledger(1000, 10, "bfloat16"), memory.ledger(1000, 10, "bfloat16", quantized=1000)
    assert (plain.gradients, plain.optimizer) == (quantized.gradients, quantized.optimizer)
    assert plain.weights * 1e9 - quantized.weights * 1e9 == pytest.approx(1000 * (2 - 0.515875))


def test_peak_sees_200_mb_that_were_freed_again(on_cpu):
    before = resident_gb()
    with memory.Peak(interval=0.005) as peak:
        block = np.ones(200_000_000, dtype=np.uint8)
        time.sleep(0.05)
        del block
    assert 0.19 < peak.gb - before < 0.4


def test_peak_sees_what_is_held_at_the_end_however_rarely_it_looks(on_cpu):
    before = resident_gb()
    with memory.Peak(interval=600) as peak:
        time.sleep(0.05)
        block = np.ones(200_000_000, dtype=np.uint8)
    assert peak.gb - before > 0.19
    del block


def test_peak_stops_looking_when_its_block_ends(on_cpu):
    with memory.Peak(interval=0.005) as peak:
        pass
    inside = peak.gb
    block = np.ones(200_000_000, dtype=np.uint8)
    time.sleep(0.05)
    del block
    assert peak.gb == inside and not peak._thread.is_alive()


def test_peak_stops_looking_when_its_block_fails(on_cpu):
    peak = memory.Peak(interval=0.005)
    with pytest.raises(RuntimeError, match="out of memory"), peak:
        raise RuntimeError("out of memory")
    assert peak.gb > 0 and not peak._thread.is_alive()
