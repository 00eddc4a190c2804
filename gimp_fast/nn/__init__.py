"""Modules with parameters, built on :mod:`gimp_fast.ops`."""

from gimp_fast.nn.group_msa import GroupMSA
from gimp_fast.nn.nystrom_attention import NystromAttention
from gimp_fast.nn.patch_aggregator import PatchAggregator, PatchDecoder
from gimp_fast.nn.rollout import attention_rollout, cls_attention

__all__ = [
    "GroupMSA",
    "NystromAttention",
    "PatchAggregator",
    "PatchDecoder",
    "attention_rollout",
    "cls_attention",
]
