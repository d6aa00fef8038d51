"""This is where every figure is named, said to be better high or low, and explained."""

from __future__ import annotations

from dataclasses import dataclass

from training.measures.listening import CLUSTERS


@dataclass(frozen=True)
class Figure:
    """A column. better: "↑" higher, "↓" lower, "→ 0" nearer to 0, "→ GT" nearer to the truth's."""

    name: str
    better: str
    meaning: str
    digits: int = 3


def _streams(name: str, better: str, meaning: str) -> list[Figure]:
    return [Figure(f"{name}_{stream}", better, meaning) for stream in CLUSTERS]


GROUPS: dict[str, list[Figure]] = {
    "Lips": [
        Figure("mouth_r", "↑", "Pearson's r of the measured mouth aperture with the true one"),
        Figure("mouth_r_worst", "↑", "the same of the worst track"),
        Figure("mouth_r_ceiling", "", "the same of the true video, which is measured no better"),
        Figure("mouth_amplitude", "→ 1", "how far the mouth moves over how far the true one does"),
        Figure("closure_pbm", "↑", "share of all P, B and M in which the lips close"),
        Figure("mouth_at_rest", "↑", "share of silent frames with a mouth as shut as the truth's"),
        Figure("lip_offset_frames", "→ 0", "median over tracks; positive when lips come late", 1),
        Figure("lip_in_sync", "↑", "share of tracks whose offset is at most one frame"),
        Figure("lip_sync_confidence", "↑", "of our lip scorer, in embedding distance; not LSE-C"),
        Figure("lip_sync_distance", "↓", "of our lip scorer at the best offset; not LSE-D"),
    ],
    "Picture": [
        Figure("face_found", "↑", "share of frames in which MediaPipe finds a face"),
        Figure("own_portrait_nearest", "↑", "share of faces nearest to their own portrait (dlib)"),
        Figure("identity_similarity", "↑", "cosine of dlib's embeddings; 0.9 between strangers"),
        Figure("identity_distance", "↓", "distance of dlib's embeddings; below 0.6 is one person"),
        Figure("psnr", "↑", "dB, each frame against the true one of its moment", 2),
        Figure("ssim", "↑", "structural similarity to the true frame of its moment"),
        Figure("perceptual_effnetlite0", "↓", "distance over EfficientNet-Lite0's taps; not LPIPS"),
        Figure("fd_effnetlite0", "↓", "Fréchet distance of its features, 64 components; not FID"),
        Figure("kd_effnetlite0", "↓", "kernel distance of its features; not KID"),
    ],
    "Listening": [
        Figure("emotion_agreement", "↑", "share of listening seconds that show the due emotion"),
        Figure("reaction_r", "↑", "likeness of the reactions to the truth's causes, at best delay"),
        Figure("reaction_gain", "→ 1", "strength of the reactions over that of the true ones"),
        Figure("reaction_delay_ms", "→ 0", "how much later than the truth's they come", 0),
        *_streams("seam_jump", "→ 1", "step into a block over steps elsewhere"),
    ],
    "Motion: distance": [
        *_streams("fd", "↓", "Fréchet distance of a clip's frames (DualTalk)"),
        *_streams("p_fd", "↓", "the same of frames paired with the partner's (DualTalk)"),
        *_streams("velocity_fd", "↓", "the same of frame differences"),
        *_streams("mse", "↓", "mean squared error (DualTalk)"),
        *_streams("sts", "↓", "root of the summed squared error of differences (DualTalk)"),
    ],
    "Motion: variety and response": [
        *_streams(
            "sid_truth_clusters", "→ GT", "entropy of the prediction in the truth's clusters"
        ),
        *_streams("sid_prediction_clusters", "→ GT", "of the truth in the prediction's (DualTalk)"),
        *_streams("sid_pooled", "→ GT", "of all clips' predictions in the truth's clusters (DIM)"),
        *_streams("variance", "→ GT", "over frames, mean over channels (DualTalk)"),
        *_streams("rpcc", "↓", "difference of the correlations with the partner (DualTalk)"),
    ],
    "Swap tests": [
        Figure(
            "voice_swap_lower_over_upper", "↑", "change with another's voice: lower / upper face"
        ),
        Figure("user_swap_upper_over_mouth_speaking", "↑", "with another user: upper face / mouth"),
        Figure("user_swap_upper_over_mouth_listening", "", "the same while listening"),
        Figure("user_swap_speaking", "↑", "with another user, in latents: upper face / mouth"),
        Figure("user_swap_listening", "", "the same while listening"),
    ],
}

BY_NAME: dict[str, Figure] = {f.name: f for figures in GROUPS.values() for f in figures}
