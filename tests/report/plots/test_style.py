"""A figure's small SVG draws what matplotlib's own draws."""

import io
import re
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from harness.report.plots.style import STYLE, render

LINK = "{http://www.w3.org/1999/xlink}href"


def figure():
    rng = np.random.default_rng(0)
    made = Figure(figsize=(4, 3))
    axes = made.subplots()
    for colour in ("#0072B2", "#D55E00"):
        axes.scatter(*rng.normal(size=(2, 40)), color=colour, alpha=0.6)
        axes.plot(*rng.normal(size=(2, 5)), marker="o", color=colour, linewidth=1.23456)
    axes.errorbar([0, 1], [1, 0], yerr=[0.1, 0.2], fmt="s")
    axes.set_title("MLQCz −1.25 × 10")
    return made


def drawn(svg):
    """Every path and glyph in order: its steps, where it lies, and what it inherits, each number to 0.02."""
    root = ElementTree.fromstring(svg)
    shapes = {each.get("id"): each for each in root.iter() if each.get("id")}
    found = []

    def walk(element, above):
        if element.tag.endswith("defs"):
            return
        styles = [part for part in element.get("style", "").split("; ") if part]
        inherited = {**above, **dict(part.split(": ", 1) for part in styles)}
        own, place = element.get("transform", ""), [float(element.get(end, 0)) for end in "xy"]
        if moved := re.fullmatch(r"translate\(([-\d.]+) ([-\d.]+)\)", own):  # x and y do the same to what is used
            own, place = "", [at + float(by) for at, by in zip(place, moved.groups(), strict=True)]
        inherited["transform"] = above.get("transform", "") + own
        inherited["clip"] = element.get("clip-path", above.get("clip"))
        if element.tag.endswith(("}path", "}use")):
            shape = shapes[element.get(LINK)[1:]] if element.tag.endswith("use") else element
            words = " ".join((shape.get("d", ""), *map(str, place), shape.get("transform", "")))
            told = f"{words} {sorted((k, v) for k, v in inherited.items() if v)} {shape.get('style')}"
            numbers = [float(number) for number in re.findall(r"-?\d+\.?\d*", told)]
            found.append((re.sub(r"-?\d+\.?\d*|\s", "", told), numbers))
        for child in element:
            walk(child, inherited)

    walk(root, {})
    return found


def test_the_small_svg_draws_the_same():
    small = render(figure())["svg"]
    plain, whole = figure(), io.BytesIO()
    render(plain)  # lays it out in the same way
    with mpl.rc_context(STYLE):
        FigureCanvasSVG(plain).print_svg(whole, metadata={"Date": None, "Creator": None})
    expected, found = drawn(whole.getvalue()), drawn(small)
    assert [words for words, _ in found] == [words for words, _ in expected]
    for (words, numbers), (_, others) in zip(found, expected, strict=True):
        np.testing.assert_allclose(numbers, others, atol=0.0101, err_msg=words)
    assert len(small) < 0.6 * len(whole.getvalue())
