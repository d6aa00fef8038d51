"""Curve names as the head has them, without its assets."""

from training.corpus.curves import CurveSet

SIDED = (
    "mouthPress", "mouthUpperUp", "mouthLowerDown", "mouthStretch", "mouthSmile", "mouthFrown",
    "cheekSquint", "eyeSquint", "eyeWide", "eyeBlink", "eyeLookIn", "eyeLookOut", "eyeLookUp",
    "eyeLookDown", "browOuterUp", "browDown", "noseSneer",
)  # fmt: skip
SINGLE = (
    "jawOpen", "mouthRollUpper", "mouthRollLower", "mouthFunnel", "mouthPucker", "tongueOut",
    "mouthShrugLower", "browInnerUp",
)  # fmt: skip
CURVES = CurveSet(tuple(f"{name}{side}" for name in SIDED for side in ("Left", "Right")) + SINGLE)
