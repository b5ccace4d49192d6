"""Make docs/pictures/slicer-*.jpg: panel and slice side by side, from real answers of the real server.

python -m tests.slicer.make_pictures [FOLDER]     look at the pictures before committing them

The panel is the module's real .ui in Qt's Fusion style, the slice is drawn by Slicer's own displayable managers; the
frame round them is not Slicer's. The image is scikit-image's fundus photograph.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

SLICE, PANEL = (780, 780), (430, 780)
QUESTIONS = {  # by file: the question, whether it is dark, and millimetres across the view
    "slicer-answer-light": ("Where do the nerve fibres leave the eye as one bundle?", False, 720),
    "slicer-answer-dark": ("Which pale hollow grows when the pressure in the eye is too high?", True, 240),
}
DISC_RAS = (-103.0, -333.0, 0.0)  # the optic disc, in the middle of the closer view


def dark_palette(qt: Any) -> Any:
    palette = qt.QPalette()
    roles = qt.QPalette.ColorRole
    for role, grey in {roles.Window: 45, roles.Base: 30, roles.AlternateBase: 45, roles.Button: 55}.items():
        palette.setColor(role, qt.QColor(grey, grey, grey))
    for role in (roles.WindowText, roles.Text, roles.ButtonText):
        palette.setColor(role, qt.QColor(225, 225, 225))
        palette.setColor(qt.QPalette.ColorGroup.Disabled, role, qt.QColor(120, 120, 120))
    palette.setColor(roles.Highlight, qt.QColor(42, 110, 180))
    palette.setColor(roles.HighlightedText, qt.QColor(255, 255, 255))
    palette.setColor(roles.PlaceholderText, qt.QColor(140, 140, 140))
    return palette


def grabbed(widget: Any, folder: Path) -> Image.Image:
    file = folder / "panel.png"
    widget.grab().save(str(file))
    return Image.open(file).convert("RGB")


def ask(panel: Any, question: str) -> None:
    from tests.slicer.stand_in.qt_binding import run_events

    panel.ui.questionEdit.plainText = question
    panel.ui.askButton.click()
    while panel.logic.is_busy:
        run_events(20)
    run_events(200)
    if panel.logic.error is not None:
        raise panel.logic.error


def main() -> None:
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[2] / "docs/pictures"
    from PySide6 import QtWidgets

    from tests.app.server import make_studies, running
    from tests.slicer.stand_in.host import install_host
    from tests.slicer.stand_in.qt_binding import run_events
    from tests.slicer.stand_in.slice_view import SliceView

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        host = install_host(folder)
        application = QtWidgets.QApplication([])
        application.setStyle("Fusion")
        import qt
        from MedReasoner import MedReasonerWidget

        from tests.collection import retina

        light = qt.QPalette(application.palette())
        with running(make_studies(folder / "studies"), folder / "run") as server:
            panel = MedReasonerWidget()
            panel.setup()
            panel.parent.resize(*PANEL)
            panel.parent.show()
            panel.ui.addressBox.setCurrentText(server.url)
            panel.panel.preferences.allow_upload(server.url)
            panel.ui.serverButton.setVisible(False)  # folded up, as one works
            view = SliceView(host, "Red", SLICE)
            volume = add_picture(retina().resize((706, 706)))
            logic = host.views["Red"]
            logic.GetSliceCompositeNode().SetBackgroundVolumeID(volume.GetID())
            logic.FitSliceToAll(*SLICE)
            run_events(300)
            for name, (question, dark, across) in QUESTIONS.items():
                application.setPalette(dark_palette(qt) if dark else light)
                node = logic.GetSliceNode()
                node.SetFieldOfView(across, across, node.GetFieldOfView()[2])
                if across < SLICE[0] / 2:
                    node.JumpSliceByCentering(*DISC_RAS)
                ask(panel, question)
                save(target / f"{name}.jpg", view.picture(), grabbed(panel.parent, folder))
                panel.ui.acceptButton.click()
                panel.logic.current.show_part("segmentation", False)
            view.close()
            panel.cleanup()


def add_picture(picture: Image.Image) -> Any:
    import slicer

    colours = np.asarray(picture.convert("RGB"))[None]
    volume = slicer.util.addVolumeFromArray(colours, np.diag([-1.0, -1, 1, 1]), "fundus", "vtkMRMLVectorVolumeNode")
    volume.CreateDefaultDisplayNodes()
    return volume


def save(file: Path, drawn: np.ndarray, panel: Image.Image) -> None:
    whole = Image.new("RGB", (PANEL[0] + SLICE[0], max(PANEL[1], SLICE[1])))
    whole.paste(panel, (0, 0))
    whole.paste(Image.fromarray(drawn), (PANEL[0], 0))
    whole.save(file, quality=90, subsampling=0, optimize=True)


if __name__ == "__main__":
    main()
