"""Modules with parameters, built on :mod:`gimp_fast.ops`."""

from gimp_fast.nn.gene_attention import GeneAttention, GeneAttentionProbe, fragment_columns
from gimp_fast.nn.group_msa import GroupMSA
from gimp_fast.nn.linear import Linear
from gimp_fast.nn.nystrom_attention import NystromAttention
from gimp_fast.nn.patch_aggregator import PatchAggregator, PatchDecoder
from gimp_fast.nn.rollout import attention_rollout, cls_attention, layer_inputs

__all__ = [
    "GeneAttention",
    "GeneAttentionProbe",
    "GroupMSA",
    "Linear",
    "NystromAttention",
    "PatchAggregator",
    "PatchDecoder",
    "attention_rollout",
    "cls_attention",
    "fragment_columns",
    "layer_inputs",
]


def __dir__() -> list[str]:
    return sorted(__all__)
