"""The campaign's camera: what lies before it at the moment of its trigger, as the PLC's program put it there.

Run in place of inspector.camera.child. A frame tells nothing of its picture but its pixels, so the score
alone says which part was looked at.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from inspector.camera import Frame, Lost, child
from inspector.camera.folder import FolderCamera, read_image
from inspector.settings import CameraSettings

FILE = "scene"  # beside the folder of pictures: the name of the one that lies before the camera
SOURCE = "scene"


class SceneCamera(FolderCamera):
    """A folder camera whose next picture is not the next of the folder."""

    def _hand_over(self, event: Frame | Lost, token: int | None) -> Frame | Lost:
        folder = self._settings.path
        picture = folder / (folder.parent / FILE).read_text()
        return super()._hand_over(replace(event, image=read_image(picture), source=SOURCE), token)


def put(station: Path, picture: str) -> None:
    """Lay this picture before the camera."""
    new = station / "scene.new"
    new.write_text(picture)
    new.replace(station / FILE)


def build(settings: CameraSettings, after: int = 0) -> SceneCamera:
    """See child.build()."""
    return SceneCamera(settings, after)


if __name__ == "__main__":
    child.build = build
    sys.exit(child.main(int(sys.argv[1]), int(sys.argv[2])))
