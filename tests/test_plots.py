import warnings

import pytest
from matplotlib import pyplot

from lab_utils import plots

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(autouse=True)
def warnings_are_errors():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield
    pyplot.close("all")


def log(*training, validation=()):
    rows = [{"step": step, "loss": loss} for step, loss in enumerate(training, 1)]
    return rows + [{"step": step, "loss": None, "validation_loss": loss} for step, loss in validation]


# --- the text beside a picture


def test_lengths_are_told_as_ranges_with_what_is_over_the_limit():
    picture = plots.lengths({"document": [10, 20, 30], "summary": [5, 6, 9]}, {"document": 20, "summary": 9})
    assert picture.png.startswith(PNG)
    assert "document: 10 to 30 tokens, 1 over the limit of 20" in picture.alt
    assert "summary: 5 to 9 tokens, 0 over the limit of 9" in picture.alt


def test_lengths_of_a_single_kind_have_a_picture_too():
    assert "document: 7 to 7 tokens, 0 over the limit of 20" in plots.lengths({"document": [7]}, {"document": 20}).alt


def test_losses_are_told_by_their_first_and_last_validation():
    picture = plots.losses({"lora": log(3.5, 2.5, validation=[(0, 3.456), (1, 3.0), (2, 2.125)])})
    assert "LoRA: validation loss from 3.46 to 2.1" in picture.alt


def test_losses_without_validation_are_told_by_the_training_loss():
    alt = plots.losses({"full": log(3.456, 2.0, 1.234)}).alt
    assert "full fine-tuning" in alt and "3.46" in alt and "1.23" in alt


def test_losses_of_a_method_that_trained_nothing_have_a_picture_too():
    assert plots.losses({"lora": []}).png.startswith(PNG)


def test_losses_of_one_method_name_the_smoothed_line_and_the_validation():
    svg = plots.losses({"full": log(3.5, 2.5, 2.0, validation=[(0, 3.4), (3, 2.2)])}).svg.decode()
    assert "training, smoothed" in svg and "validation" in svg


def masked(prompt=3, answer=2, padding=1, most=20):
    kinds = ["prompt"] * prompt + ["answer"] * answer + ["end token"] + ["padding"] * padding
    tokens = [f" t{number}" for number in range(len(kinds))]
    return plots.mask(tokens, kinds, [kind in ("answer", "end token") for kind in kinds], most)


def test_a_training_row_is_told_by_its_parts_and_the_supervised_share():
    alt = masked(prompt=6, answer=2, padding=1).alt
    assert "prompt: 6 tokens, not supervised; answer: 2 tokens, supervised; end token: 1 token, supervised; padding: 1 token, not" in alt
    assert "Supervised: 30% of 10 tokens" in alt


def test_a_part_that_is_supervised_only_in_places_is_told_in_pieces():
    alt = plots.mask(["a", "b", "c"], ["answer"] * 3, [True, False, True]).alt
    assert "answer: 1 token, supervised; answer: 1 token, not supervised; answer: 1 token, supervised" in alt


def test_a_long_part_of_a_row_shows_its_two_ends():
    def comments(picture):
        return picture.svg.decode()

    short, long = comments(masked(prompt=8, most=8)), comments(masked(prompt=500, most=8))
    assert plots.GAP not in short and plots.GAP in long
    assert " t0 " in long and " t499 " in long and " t250 " not in long


def test_a_token_that_the_font_lacks_or_that_means_something_to_the_drawing_is_drawn_all_the_same():
    tokens = ["\n", "$x$", "\u6f22", "\U0001f600", "\ufffd", "", "_^{", "w" * 200]
    assert plots.mask(tokens, ["prompt"] * len(tokens), [False] * len(tokens)).png.startswith(PNG)


def test_no_line_of_a_row_is_longer_than_the_figure_is_wide():
    lines = plots._flowed(["word" * (i % 5 + 1) for i in range(60)], plots.CHARACTERS)
    assert max(x + len(text) for line in lines for x, text in line) <= plots.CHARACTERS
    assert [text for line in lines for _, text in line] == ["word" * (i % 5 + 1) for i in range(60)]


def test_stacked_bars_are_told_by_their_totals():
    rows = {"full": {"weights": 1.0, "gradients": 1.0, "optimizer": 2.0}, "LoRA": {"weights": 0.5, "activations": 0.25}}
    alt = plots.stacked(rows).alt
    assert "full 4.00 GB; LoRA 0.75 GB" in alt
    assert all(part in alt for part in ("weights", "gradients", "optimizer", "activations"))


def test_stacked_bars_count_every_part_however_many_there_are():
    assert "full 7.00 GB" in plots.stacked({"full": {f"part {i}": 1.0 for i in range(7)}}).alt


def test_stacked_bars_of_nothing_have_a_picture_too():
    assert "none 0.00 " in plots.stacked({"none": {"weights": 0.0}}).alt


def test_intervals_are_told_with_both_ends():
    alt = plots.intervals({"zero-shot": (20.04, 18.0, 22.5), "LoRA": (-3.25, -7.0, 0.5)}, "ROUGE-1", zero_line=True).alt
    assert "zero-shot 20.0 [18.0, 22.5]" in alt and "LoRA -3.2 [-7.0, 0.5]" in alt and "ROUGE-1" in alt


def test_only_clear_rows_are_filled_with_colour():
    def filled(**options):
        svg = plots.intervals({"above": (3.0, 1.0, 5.0), "around": (0.5, -1.0, 2.0)}, "points", zero_line=True, **options).svg.decode()
        return svg.lower().count(f"fill: {plots.ACCENT.lower()}")

    assert filled(clear=["above", "around"]) > filled() == filled(clear=["above"]) > filled(clear=[]) == 0


def test_an_interval_without_width_has_a_picture_too():
    assert "only 40.0 [40.0, 40.0]" in plots.intervals({"only": (40.0, 40.0, 40.0)}, "ROUGE-1", zero_line=True).alt


def test_cost_and_quality_are_told_method_by_method():
    alt = plots.cost_and_quality({"lora": (1.25, 30.0, 28.0, 33.0), "full": (12.0, 31.0, 31.0, 31.0)}, "peak GB", "ROUGE-1").alt
    assert "LoRA 30.0 at 1.25" in alt and "full fine-tuning 31.0 at 12" in alt and "peak GB" in alt and "ROUGE-1" in alt


def test_lines_keep_the_text_they_are_given():
    assert plots.lines({"r = 4": ([1, 2], [3.0, 4.0])}, "step", "loss", "Loss rises from 3 to 4.").alt == "Loss rises from 3 to 4."


# --- pictures as files and in notebooks


@pytest.fixture
def picture():
    return plots.intervals({"zéro": (1.0, 0.5, 2.0)}, "points")


def test_saving_writes_the_picture_and_its_text(picture, tmp_path):
    assert picture.save(tmp_path / "scores.png") is picture
    assert (tmp_path / "scores.png").read_bytes() == picture.png
    assert (tmp_path / "scores.txt").read_text(encoding="utf-8") == picture.alt + "\n"
    assert {path.name for path in tmp_path.iterdir()} == {"scores.png", "scores.txt"}


def test_a_picture_is_there_as_svg_too_the_same_every_time_and_without_a_script(picture):
    svg = picture.svg.decode()
    assert "<svg" in svg and "<script" not in svg and 'href="http' not in svg
    assert plots.intervals({"zéro": (1.0, 0.5, 2.0)}, "points").svg == picture.svg


def test_a_notebook_gets_the_picture_with_its_text_as_alternative(picture):
    data, metadata = picture._repr_mimebundle_()
    assert data == {"image/png": picture.png, "text/plain": picture.alt}
    assert metadata["image/png"]["alt"] == picture.alt


def test_a_drawn_figure_is_closed(picture):
    assert pyplot.get_fignums() == []


def test_a_figure_that_fails_is_closed_too():
    with pytest.raises(ZeroDivisionError), plots.axes():
        raise ZeroDivisionError
    assert pyplot.get_fignums() == []


def test_the_style_does_not_leak_into_the_readers_own_figures():
    before = dict(pyplot.rcParams)
    plots.lines({"a": ([1], [1])}, "x", "y", "One point.")
    assert dict(pyplot.rcParams) == before


def test_every_method_has_a_name_and_a_colour_of_its_own():
    from lab_utils.config import METHODS

    assert set(plots.METHOD_NAMES) == set(plots.COLORS) == set(METHODS)
    assert len(set(plots.COLORS.values())) == len(METHODS)


def test_smoothing_starts_at_the_first_value_and_follows_slowly():
    assert plots.smoothed([10.0, 0.0, 0.0], weight=0.5) == [10.0, 5.0, 2.5]
    assert plots.smoothed([]) == []
