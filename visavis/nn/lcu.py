"""This is where the LCU's perception and understanding branches join into f_pu (ECHO, Fig. 2).

The affective branch enters the denoiser by another door, as tokens of c_emo: `visavis.nn.affect`.
"""

from __future__ import annotations

from torch import Tensor, nn

from visavis.config import EchoConfig
from visavis.nn.perception import Perception
from visavis.nn.understanding import ContextMemory, GatedCrossAttention, Understanding


class LCUEncoder(nn.Module):
    """One block of the user and the carried state -> `user_tokens` (f_pu) and the next state.

    Args of `forward` (names and shapes as in `visavis.contract`, with a batch axis B):
        user_audio_features: (B, A, D_audio) float32; the last F frames are the block's.
        user_latents: (B, F, C, h, w) float32.
        user_valid: (B, 2) float32, whether voice and face are there.
        block_index: (B, 1) int64, counted from the start of the conversation.
        audio_scan_state, video_scan_state: (B, heads, D/heads, N) float32.
        user_reference_latents: (B, C, h, w) float32.
        memory: (B, M, D) float32. memory_summary: (B, D) float32.
    Returns user_tokens (B, F, K, D) and the five states in the same order.
    """

    def __init__(self, config: EchoConfig):
        super().__init__()
        self.block_frames = config.block_frames
        self.perceives = "perception" not in config.without
        self.understands = "understanding" not in config.without
        self.perception = Perception(config)
        self.context_memory = ContextMemory(config)
        self.understanding = Understanding(config)
        self.fusion = GatedCrossAttention(config)
        self.norm = nn.LayerNorm(config.lcu.width)

    def forward(
        self,
        user_audio_features: Tensor,
        user_latents: Tensor,
        user_valid: Tensor,
        block_index: Tensor,
        audio_scan_state: Tensor,
        video_scan_state: Tensor,
        user_reference_latents: Tensor,
        memory: Tensor,
        memory_summary: Tensor,
    ) -> tuple[Tensor, ...]:
        perceived, *carried = self.perception(
            user_audio_features[:, -self.block_frames :],
            user_latents,
            user_valid[:, None],
            audio_scan_state,
            video_scan_state,
            user_reference_latents,
        )
        memory, memory_summary = self.context_memory(perceived, memory, memory_summary, block_index)
        user_tokens = self.understand(perceived, memory, memory_summary)
        return user_tokens, *carried, memory, memory_summary

    def understand(self, perceived: Tensor, memory: Tensor, memory_summary: Tensor) -> Tensor:
        """f_pu (B, F, K, D) of a block's P_usr and of what is remembered, the block included."""
        asking = perceived if self.perceives else self.perception.kind.expand_as(perceived)
        understood = self.understanding(memory, memory_summary) if self.understands else None
        return self.norm(self.fusion(asking, understood))
