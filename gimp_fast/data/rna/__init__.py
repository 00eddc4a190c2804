"""RNA-seq expression: GDC downloads, tables in many layouts, AnnData; genes and their lists."""

from gimp_fast.data.rna.expression import open_expression, open_expressions
from gimp_fast.data.rna.files import STAR_SUFFIX
from gimp_fast.data.rna.gdc import RNA_COLUMNS
from gimp_fast.data.rna.genes import (
    align_expression,
    filter_genes,
    find_genes,
    gene_key,
    read_gene_list,
    read_gene_sets,
)
from gimp_fast.data.rna.orientation import ORIENTATIONS
from gimp_fast.data.rna.samples import Sample, choose_samples
from gimp_fast.data.rna.source import TRANSFORMS, Expression, ExpressionSource

__all__ = [
    "ORIENTATIONS",
    "RNA_COLUMNS",
    "STAR_SUFFIX",
    "TRANSFORMS",
    "Expression",
    "ExpressionSource",
    "Sample",
    "align_expression",
    "choose_samples",
    "filter_genes",
    "find_genes",
    "gene_key",
    "open_expression",
    "open_expressions",
    "read_gene_list",
    "read_gene_sets",
]
