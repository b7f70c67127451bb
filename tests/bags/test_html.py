"""Bags in notebooks."""

import xml.etree.ElementTree as ET

import numpy as np
import pandas as pd

from skfisher import Bags


def shown(bags):
    """Return the table as a dict, and the heights of bars."""
    root = ET.fromstring(bags._repr_html_())  # well formed, so that names break no page
    rows = {row[0].text: row[1].text for row in root.iter("tr")}
    bars = [float(bar.get("height")) for bar in root.iter("{http://www.w3.org/2000/svg}rect")]
    return rows, bars


def test_numbers_and_a_histogram_of_lengths():
    lengths = [1, 2, 2, 4]
    rows, bars = shown(Bags.from_lengths(np.zeros((9, 5), np.float32), lengths))
    assert rows == {
        "bags": "4", "descriptors": "9", "features": "5 float32", "size": "180 B",
        "kept in": "memory", "in a bag": "1 to 4, median 2",
    }  # fmt: skip
    np.testing.assert_allclose(np.array(bars) / max(bars), [0.5, 1, 0, 0.5])


def test_bags_of_one_length_and_none_have_no_histogram():
    bags = Bags.from_lengths(np.zeros((4, 1)), [2, 2])
    rows, bars = shown(bags)
    assert rows["in a bag"] == "2"
    assert bars == []
    rows, bars = shown(bags[:0])
    assert (rows["bags"], bars) == ("0", [])


def test_names_are_text():
    frame = pd.DataFrame(np.zeros((3, 2)), columns=["<b>a&b</b>", "c"])
    rows, _ = shown(Bags.from_list([frame]))
    assert rows["features"] == "2 float64 (<b>a&b</b>, c)"


def test_colours_are_those_of_the_page():
    html = Bags.from_lengths(np.zeros((3, 1)), [1, 2])._repr_html_()
    assert "currentColor" in html
    assert "#" not in html
    assert "background" not in html
    assert '<table style="color:inherit">' in html


def test_where_bags_live(tmp_path):
    bags = Bags.from_lengths(np.zeros((3, 1)), [1, 2])
    bags.save(tmp_path / "bags")
    rows, _ = shown(Bags.load(tmp_path / "bags")[:1])
    assert rows["kept in"].startswith(f"a mapped file, {tmp_path / 'bags' / 'values-'}")
    path = tmp_path / "a&b.npy"
    np.save(path, np.zeros((3, 1)))
    rows, _ = shown(Bags.from_files([path]))
    assert rows["kept in"] == f"1 files, such as {path}"


def test_bags_on_a_device(xp):
    rows, _ = shown(Bags.from_lengths(xp.zeros((3, 1)), [1, 2]))
    assert rows["kept in"].startswith("memory" if xp is np else "the memory of")
