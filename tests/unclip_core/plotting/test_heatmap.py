"""The matrix of similarities, written and drawn."""

import pytest
import torch

from unclip.unclip_core.plotting.heatmap import CELL, LABEL_WIDTH, color_of, heatmap, matrix_text

MATRIX = torch.tensor([[1.0, 0.0], [-1.0, 0.4567]])
ROWS, COLUMNS = ["a red circle", "b"], ["one", "two"]


def test_the_table_names_rows_and_columns_and_rounds():
    lines = matrix_text(MATRIX, ROWS, COLUMNS).split("\n")
    assert lines[0].split() == ["1", "2"]
    assert lines[1].split() == ["a", "red", "circle", "1.000", "0.000"]
    assert lines[2].split() == ["b", "-1.000", "0.457"]
    assert len({len(line) for line in lines[:3]}) == 1
    assert lines[-2:] == ["1: one", "2: two"]


def test_colours_run_from_blue_over_white_to_red_and_stop_there():
    assert color_of(0.0) == (255, 255, 255)
    red, blue = color_of(1.0), color_of(-1.0)
    assert red[0] > red[2] + 80 and blue[2] > blue[0] + 80
    assert color_of(7.0) == red and color_of(-7.0) == blue
    greens = [color_of(value / 10)[1] for value in range(11)]
    assert greens == sorted(greens, reverse=True)


def test_every_cell_has_its_colour_where_it_belongs():
    image = heatmap(MATRIX, ROWS, COLUMNS)
    assert image.ndim == 3 and image.shape[2] == 3 and 0 <= image.min() and image.max() <= 1
    for row in range(2):
        for column in range(2):
            corner = image[(row + 1) * CELL + 3, LABEL_WIDTH + column * CELL + 3]
            expected = torch.tensor(color_of(MATRIX[row, column].item())) / 255
            torch.testing.assert_close(corner, expected, rtol=0, atol=1e-6)
    assert image[CELL : 2 * CELL, :LABEL_WIDTH].min() < 0.5  # the row's label is there


def test_labels_of_any_script_and_length_are_drawn_within_their_room():
    labels = ["円 🟥 كرة " * 40, "x" * 500]
    one = heatmap(MATRIX, labels, labels)
    assert one[CELL : 3 * CELL, LABEL_WIDTH - 6 : LABEL_WIDTH].min() > 0.9


@pytest.mark.parametrize(("rows", "columns"), [(["a"], COLUMNS), (ROWS, ["a", "b", "c"])])
def test_labels_that_do_not_fit_are_refused(rows, columns):
    for make in (heatmap, matrix_text):
        with pytest.raises(ValueError, match="does not fit"):
            make(MATRIX, rows, columns)
