"""This is where a sentence about the avatar's due emotion becomes c_emo: LCU's Linguistic-driven
Affective Understanding (ECHO, Fig. 2), its text encoder E_txt.

The sentence comes from a language model Ψ (`visavis.affect`); words are hashed, so any sentence can
be read, and words of feeling are learned in training.

Legend: B batch, W words, E affect tokens, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from visavis.config import AffectConfig
from visavis.nn.attention import Attention, TransformerLayer


class AffectEncoder(nn.Module):
    """E_txt: `word_ids` (B, W) int64, 0 is padding -> `affect_tokens` (B, E, D) float32."""

    def __init__(self, config: AffectConfig):
        super().__init__()
        self.embed = nn.Embedding(config.vocabulary, config.width)
        nn.init.normal_(self.embed.weight, std=1.0)
        self.position = nn.Parameter(torch.randn(config.max_words, config.width) * 0.02)
        self.layers = nn.ModuleList(
            TransformerLayer(config.width, config.heads) for _ in range(config.layers)
        )
        self.queries = nn.Parameter(torch.randn(config.tokens, config.width) * 0.02)
        self.pool = Attention(config.width, config.heads)
        self.norm = nn.LayerNorm(config.width)

    def forward(self, word_ids: Tensor) -> Tensor:
        present = (word_ids != 0)[:, None, None]  # (B, 1, 1, W)
        # An empty sentence still attends to its first position: no row may be fully masked.
        first = torch.arange(word_ids.shape[1], device=word_ids.device) == 0
        mask = present | first
        words = word_ids.shape[1]
        x = self.embed(word_ids) + self.position
        for layer in self.layers:
            x = layer(x, mask.expand(-1, 1, words, words))
        queries = self.queries.expand(word_ids.shape[0], -1, -1)
        pooled = self.pool(queries, x, mask.expand(-1, 1, queries.shape[1], words))
        return self.norm(pooled)
