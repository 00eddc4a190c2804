"""RNA-seq expression: GDC downloads, tables in many layouts, AnnData; genes and their lists."""

from gimp_fast.data.rna.expression import open_expression, open_expressions
from gimp_fast.data.rna.gdc_files import STAR_SUFFIX
from gimp_fast.data.rna.gene_lists import gene_key, read_gene_list, read_gene_sets
from gimp_fast.data.rna.genes import align_expression, filter_genes, find_genes
from gimp_fast.data.rna.samples import Sample, choose_samples
from gimp_fast.data.rna.source import Expression, ExpressionSource

__all__ = [
    "STAR_SUFFIX",
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
