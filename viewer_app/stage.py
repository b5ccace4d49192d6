"""The picture on the page, with the answer's mask, box and points on it to see and to drag.

All of it is one SVG whose units are picture pixels (docs/coordinates.md), so that nothing has to be scaled here.
"""

from __future__ import annotations

from trame.widgets import html
from trame_client.widgets.core import HtmlElement

_COLOUR = "#ffd60a"
_UNIT = "(Math.max(...picture_size) / 100)"  # picture pixels: handles keep their size on screen, roughly
# Vue takes an event's code for statements only where it holds a semicolon.
# The pointer in picture pixels: the matrix takes them to the screen, whatever the size of the page.
_MATRIX = "$event.currentTarget.getScreenCTM()"
_X = f"(($event.clientX - {_MATRIX}.e) / {_MATRIX}.a)"
_Y = f"(($event.clientY - {_MATRIX}.f) / {_MATRIX}.d)"
_DOWN = f"if (drawing && !anchor) {{ anchor = [{_X}, {_Y}]; points = []; mask = '' }};"
_MOVE = (
    f"if (anchor) {{ box = [Math.min(anchor[0], {_X}), Math.min(anchor[1], {_Y}),"
    f" Math.max(anchor[0], {_X}), Math.max(anchor[1], {_Y})] }}"
    f" else if (moving >= 0) {{ points = points.map((p, i) => i === moving ? [{_X}, {_Y}] : p) }};"
)
_UP = "if (anchor || moving >= 0) { anchor = null; moving = -1; trigger('refine', [box, points]) };"


def build_stage() -> None:
    """Add the picture to the page that is being built."""
    html.Div("Open an image to begin.", v_if=("!picture",), classes="text-body-1 pa-8", style="opacity: 0.75")
    with html.Svg(
        v_if=("picture",),
        id="stage",
        viewbox=("`0 0 ${picture_size[0]} ${picture_size[1]}`",),
        style=(
            "`width: 100%; height: calc(100vh - 150px); touch-action: none; background: black;"
            " cursor: ${drawing ? 'crosshair' : 'default'}`",
        ),
        v_on_pointerdown=_DOWN,
        v_on_pointermove=_MOVE,
        v_on_pointerup=_UP,
        v_on_pointerleave=_UP,
        __properties=[("viewbox", "viewBox")],
    ):
        for shown, source in (("picture", "picture"), ("mask && show_mask", "mask")):
            _element(
                "image",
                f'v-if="{shown}" :href="{source}" :width="picture_size[0]" :height="picture_size[1]" id="{source}"'
                ' style="pointer-events: none"',
            )
        with html.Template(v_if=("box && show_box",)):
            _box()
        with html.Template(v_if=("show_points",)):
            _points()


def _box() -> None:
    place = ':x="box[0]" :y="box[1]" :width="box[2] - box[0]" :height="box[3] - box[1]"'
    style = f'fill="none" stroke="{_COLOUR}" stroke-width="2" vector-effect="non-scaling-stroke"'
    _element("rect", f'{place} {style} id="box" style="pointer-events: none"')
    for x, y in ((0, 1), (2, 1), (2, 3), (0, 3)):
        opposite = f"[box[{(x + 2) % 4}], box[{(y + 2) % 4}]]"
        _element(
            "circle",
            f':cx="box[{x}]" :cy="box[{y}]" :r="{_UNIT}" fill="{_COLOUR}" class="corner" style="cursor: move"'
            f' @pointerdown.stop="if (!busy) anchor = {opposite};"',
        )


def _points() -> None:
    _element(
        "circle",
        f'v-for="(p, i) in points" :key="i" :cx="p[0]" :cy="p[1]" :r="{_UNIT}" fill="white" stroke="{_COLOUR}"'
        ' stroke-width="3" vector-effect="non-scaling-stroke" class="point" style="cursor: move"'
        ' @pointerdown.stop="if (!busy) moving = i;"',
    )


def _element(name: str, attributes: str) -> None:
    """Add an SVG element as written: trame has names for HTML's elements only."""
    HtmlElement(name, raw_attrs=[attributes])
