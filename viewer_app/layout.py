"""The page: picture with its answer on the left, question and reasoning on the right."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trame.ui.vuetify3 import VAppLayout
from trame.widgets import html
from trame.widgets import vuetify3 as v3

from viewer_app.stage import build_stage

if TYPE_CHECKING:
    from viewer_app.app import ViewerApp

TITLE = "MedReasoner"
NOTICE = "Research use only. Not a medical device."
_FIELD = {"density": "compact", "variant": "outlined", "hide_details": True}
_COLUMNS = "display: flex; gap: 16px; padding: 0 16px 16px; align-items: flex-start"


def build(app: ViewerApp) -> None:
    """Put the whole page together."""
    with VAppLayout(app.server, theme=("dark ? 'dark' : 'light'",)), v3.VMain():
        _heading(app)
        with html.Div(style=_COLUMNS):
            with html.Div(style="flex: 1 1 auto; min-width: 0"):
                _view_choice()
                build_stage()
            with html.Div(style="flex: 0 0 400px; max-width: 42vw"):
                _question(app)
                _answer(app)
                _history(app)


def _heading(app: ViewerApp) -> None:
    with html.Div(style="display: flex; gap: 12px; padding: 12px 16px; align-items: center"):
        html.Div(TITLE, classes="text-h6")
        v3.VTextField(
            id="path",
            v_model=("path",),
            label="path of an image file or series folder on this machine",
            keydown="if ($event.key === 'Enter') trigger('open_image', [path]);",
            **_FIELD,
        )
        v3.VBtn("Open", id="open", click=(app.open_image, "[path]"), variant="tonal", disabled=("!path || !!busy",))
        html.Div(NOTICE, classes="text-caption", style="opacity: 0.8; white-space: nowrap")
        v3.VBtn("{{ dark ? 'Light' : 'Dark' }}", id="theme", click="dark = !dark", variant="text", size="small")
    with v3.VAlert(v_if=("error",), id="error", type="error", density="compact", classes="mx-4 mb-2", variant="tonal"):
        html.Div("{{ error }}")
        html.Div("{{ hint }}", classes="text-caption")


def _view_choice() -> None:
    with html.Div(v_if=("picture",), style="display: flex; gap: 16px; align-items: center; padding-bottom: 8px"):
        toggle = {"mandatory": True, "density": "compact", "variant": "outlined", "divided": True}
        with v3.VBtnToggle(v_model=("axis",), **toggle):
            v3.VBtn("{{ name }}", v_for="name in axes", key="name", value=("name",), size="small")
        v3.VSlider(
            v_if=("last_slice > 0",),
            v_model=("slice_index",),
            min=0,
            max=("last_slice",),
            step=1,
            hide_details=True,
            style="min-width: 120px",
        )
        html.Div("slice {{ slice_index }} of 0 to {{ last_slice }}", v_if=("last_slice > 0",), classes="text-caption")
        for name, label in (("window_centre", "window centre"), ("window_width", "width")):
            v3.VTextField(
                id=name,
                v_model_number=(name,),
                label=label,
                type="number",
                placeholder="auto",
                style="max-width: 140px",
                **_FIELD,
            )


def _question(app: ViewerApp) -> None:
    v3.VTextarea(
        id="question",
        v_model=("question",),
        label="clinical question (Ctrl+Return asks)",
        rows=3,
        auto_grow=True,
        keydown="if ($event.key === 'Enter' && ($event.ctrlKey || $event.metaKey)) trigger('ask', [question]);",
        **_FIELD,
    )
    with html.Div(style="display: flex; gap: 8px; align-items: center; padding: 8px 0"):
        v3.VBtn(
            "Ask",
            id="ask",
            color="primary",
            click=(app.ask, "[question]"),
            disabled=("!picture || !question.trim() || !!busy",),
        )
        html.Div("{{ busy }} {{ seconds }} s", v_if=("busy",), id="busy", classes="text-caption")
        html.Div("{{ status }}", v_if=("!busy && status",), id="status", classes="text-caption")


def _answer(app: ViewerApp) -> None:
    with v3.VCard(v_if=("asked",), variant="tonal", classes="pa-3 mb-3"):
        html.Div("{{ asked }}", classes="text-subtitle-2 mb-1")
        v3.VChip("not present in this image", v_if=("absent",), id="absent", color="warning", size="small")
        html.Div("{{ reasoning }}", id="reasoning", classes="text-body-2 my-1", style="white-space: pre-line")
        html.Div("confidence {{ confidence }} (a ranking, not a probability)", classes="text-caption")
    with html.Div(v_if=("picture",), style="display: flex; flex-wrap: wrap; gap: 8px; align-items: center"):
        v3.VBtn(
            "{{ drawing ? 'Drag on the picture' : 'Draw box' }}",
            id="draw",
            click="drawing = !drawing",
            variant="tonal",
            size="small",
            disabled=("!!busy",),
        )
        v3.VBtn("Undo", id="undo", click=app.undo, variant="tonal", size="small", disabled=("!!busy",))
        v3.VBtn(
            "Save", id="save", click=app.save, variant="tonal", size="small", disabled=("(!box && !absent) || !!busy",)
        )
    with html.Div(v_if=("box",), style="display: flex; gap: 8px"):
        for name in ("box", "points", "mask"):
            v3.VCheckbox(v_model=(f"show_{name}",), label=name, density="compact", hide_details=True)


def _history(app: ViewerApp) -> None:
    with v3.VList(v_if=("answers.length > 1",), density="compact", bg_color="transparent"):
        v3.VListSubheader("answers of this image")
        v3.VListItem(
            v_for="one in answers",
            key="one.number",
            title=("one.question",),
            subtitle=("`${one.where}${one.edited ? ', corrected' : ''}`",),
            click=(app.go_to, "[one.number]"),
        )
