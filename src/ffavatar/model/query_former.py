"""Multi-View Query-Former: one query per anchor (or per Gaussian) gathers the evidence of all views.

Tokens of all views lie in one bank without any mark of their order, so any number of views, in any order, gives one
avatar.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


class FourierEmbedding(nn.Module):
    """Position of a vertex -> token: sines and cosines at octaves of 2 pi / 0.5 m, then an MLP."""

    frequencies: Tensor

    def __init__(self, width: int, octaves: int = 6):
        super().__init__()
        self.register_buffer("frequencies", 2 * math.pi / 0.5 * 2.0 ** torch.arange(octaves), persistent=False)
        self.mlp = nn.Sequential(nn.Linear(3 * (1 + 2 * octaves), width), nn.GELU(), nn.Linear(width, width))

    def forward(self, points: Tensor) -> Tensor:
        """(..., 3) metres -> (..., width)."""
        phase = (points[..., None] * self.frequencies).flatten(-2)
        return self.mlp(torch.cat([points * 10, phase.sin(), phase.cos()], -1))


class Attention(nn.Module):
    """Multi-head attention of ``x`` on ``context``."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(width, width)
        self.to_kv = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """(Q, width), (P, width) -> (Q, width)."""
        q = self.to_q(x).unflatten(-1, (self.heads, -1)).transpose(0, 1)
        k, v = self.to_kv(context).unflatten(-1, (2, self.heads, -1)).permute(1, 2, 0, 3)
        attended = F.scaled_dot_product_attention(q[None], k[None], v[None])[0]
        return self.out(attended.transpose(0, 1).flatten(1))


class Block(nn.Module):
    """Self-attention over queries, cross-attention to the token bank, MLP; pre-norm."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(width) for _ in range(3))
        self.self_attention = Attention(width, heads)
        self.cross_attention = Attention(width, heads)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor, bank: Tensor) -> Tensor:
        normed = self.norm1(x)
        x = x + self.self_attention(normed, normed)
        x = x + self.cross_attention(self.norm2(x), bank)
        return x + self.mlp(self.norm3(x))


class QueryFormer(nn.Module):
    """Learnable queries + positional embedding -> tokens that have seen all views."""

    def __init__(self, queries: int, width: int, depth: int, heads: int, token_width: int):
        super().__init__()
        self.queries = nn.Parameter(torch.empty(queries, width))
        nn.init.normal_(self.queries, std=0.02)
        self.embed = FourierEmbedding(width)
        self.project = nn.Linear(token_width, width)
        self.project_norm = nn.LayerNorm(width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.checkpointing = False

    def forward(self, positions: Tensor, tokens: Tensor, evidence: Tensor | None = None) -> Tensor:
        """``positions`` (Q, 3) of the template, ``tokens`` (S, P, C), ``evidence`` (Q, width) added to the queries
        -> (Q, width)."""
        bank = self.project_norm(self.project(tokens.flatten(0, 1)))
        x = self.queries[: len(positions)] + self.embed(positions)
        if evidence is not None:
            x = x + evidence
        for block in self.blocks:
            if self.checkpointing and self.training:
                x = checkpoint(block, x, bank, use_reentrant=False)
            else:
                x = block(x, bank)
        return self.norm(x)
