"""This is where a head's motion gets its numbers: how it is turned, and where its eyes are.

Six a frame, as differences from the portrait, so that a portrait may look anywhere:

    yaw, pitch, roll    rad; left, down, to the right shoulder, as the corpus has them
    lids                how far they are closed, in [0, 1] of the way
    gaze_x, gaze_y      how far the eyes are turned, left and up, as ARKit's curves count
"""

from __future__ import annotations

NAMES = ("yaw", "pitch", "roll", "lids", "gaze_x", "gaze_y")
# What moves together.
GROUPS = {"pose": slice(0, 3), "lids": slice(3, 4), "gaze": slice(4, 6)}
# Standard deviations over the corpus, of the numbers and of their steps from frame to frame:
# networks see multiples of these.
SCALES = (0.045, 0.025, 0.023, 0.17, 0.135, 0.07)
STEP_SCALES = (0.0025, 0.0043, 0.0011, 0.105, 0.033, 0.018)
