"""Columns of expression tables: which are samples, which are genes, and which are facts of them."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

from gimp_fast.data.names import PATIENT_COLUMNS, SAMPLE_BARCODE, patient_of_sample

SAMPLE_COLUMNS = ("barcode", "sample_id", "sample")
SLIDE_COLUMNS = ("slide_id", "slide")
UNNAMED = ("", "Unnamed: 0", "index")  # the index of a data frame, if it comes first
# Names are compared in lower case, with "_" for spaces, dots and dashes; see ``plain``.
_GENE_IDS = {
    *("ensembl_id", "ensembl", "ensembl_gene_id", "ensembl_gene", "ensg", "gene_id", "geneid"),
    *("gene_ids", "gene", "genes", "id", "hugo_symbol", "entrez_gene_id", "feature_id", "name"),
}
# The first of a kind that a table has is used.
_NAMES = ("gene_name", "gene_symbol", "hugo_symbol", "symbol", "genename", "hgnc_symbol")
_TYPES = ("gene_type", "gene_biotype", "biotype")
CORNERS = {*_GENE_IDS, *_NAMES, *map(str.lower, PATIENT_COLUMNS), *SAMPLE_COLUMNS, *SLIDE_COLUMNS}
# Facts of genes that annotation files and counting tools write beside the values.
_GENE_FACTS = {
    *("chr", "chrom", "chromosome", "chromosome_name", "seqname", "seqnames", "strand", "locus"),
    *("start", "end", "stop", "gene_start", "gene_end", "start_position", "end_position", "tss"),
    *("tx_start", "tx_end", "txstart", "txend", "position", "band", "cytoband", "karyotype_band"),
    *("length", "gene_length", "genelength", "width", "size", "effective_length", "eff_length"),
    *("exon_length", "transcript_length", "merged_length", "length_bp", "kb", "exon_count"),
    *("exons", "n_exons", "num_exons", "gc", "gc_content", "percentage_gene_gc_content", "score"),
    *("entrez", "entrezid", "entrez_id", "entrez_gene", "entrezgene", "entrezgene_id", "ncbi_id"),
    *("ncbi_gene_id", "hgnc_id", "gene_version", "transcript_id", "transcript_ids", "accession"),
    *("transcript_id(s)", "gene_description", "description", "source", "havana_gene", "level"),
    *("external_gene_name", "probe", "probe_id", "refseq", "uniprot", "uniprot_id", "frame"),
    *("mean", "median", "average", "sum", "total", "variance", "basemean", "log2foldchange"),
    *("lfcse", "stat", "pvalue", "padj", "logfc", "aveexpr", "logcpm", "fdr"),
}
# Facts of patients that tables have among the genes; none is the name of a gene.
_CLINICAL = {
    *("age", "gender", "sex", "race", "ethnicity", "is_female", "project", "project_id", "cohort"),
    *("oncotree_code", "oncotree_site", "site", "stage", "grade", "sample_type", "tissue_type"),
    *("survival", "survival_months", "survival_days", "censorship", "event", "status", "batch"),
    *("os", "os_months", "os_status", "os_time", "os_event", "dss", "dss_time", "dfi", "dfi_time"),
    *("pfi", "pfi_time", "pfs", "pfs_time", "dfs", "dfs_time", "label", "subtype", "fold", "split"),
    *("train", "vital_status", "days_to_death", "days_to_birth", "days_to_last_follow_up"),
    *("days_to_last_followup", "age_at_diagnosis", "age_at_index", "year_of_diagnosis", "bmi"),
    *("age_at_initial_pathologic_diagnosis", "tumor_purity", "purity", "tmb", "plate", "rin"),
    *("library_size", "total_counts", "n_counts", "mutation_count", "fraction_genome_altered"),
}
# What tools add to the name of a sample, one part at a time.
_ENDING = re.compile(
    r"\.(?:bam|sam|cram|fastq|fq|gz|txt|tsv|csv|tab|sf|counts?|results|genes|isoforms|out|sorted"
    r"|sort|sortedByCoord|sortedbycoord|Aligned|aligned|toTranscriptome|dedup|markdup|markdups|md"
    r"|rmdup|nodup|deduplicated|merged|primary|unique|uniq|filtered|htseq|featureCounts|quant"
    r"|ReadsPerGene|FPKM|TPM)$"
    r"|_(?:counts?|htseq|sorted|dedup|markdup|Aligned|aligned|ReadsPerGene|quant)$"
    r"|(?<=\d[A-Z])(?:ReadsPerGene|Aligned)$"
)
_FILE = re.compile(r"[/\\]|\.(?:bam|sam|cram)$")
# R's make.names writes dots for dashes, and X before a path.
_DOTTED = re.compile(
    r"(?:.*\.)?([A-Z0-9]{4}\.[A-Z0-9]{2}\.[A-Z0-9]{4})(\.\d\d[A-Z]?(?:\.[A-Z0-9]+)*)?"
)


def plain(name: str) -> str:
    """A column's name for comparison: ``Gene Symbol`` and ``Gene.Symbol`` are ``gene_symbol``."""
    return re.sub(r"[ .\-]+", "_", name.strip().lower())


def gene_column(header: Sequence[str]) -> int:
    """Place of the column that names the genes in rows: the first, unless it says otherwise."""
    names = [plain(name) for name in header]
    if header[0] in UNNAMED or names[0] in _GENE_FACTS or names[0] in _TYPES:
        ids = (n for n, name in enumerate(names) if name in _GENE_IDS or name in _NAMES)
        return next(ids, 0)
    return 0


def is_above_genes(name: str) -> bool:
    """True if the first cell of a header says that genes are below it."""
    return plain(name) in _GENE_IDS or plain(name) in _NAMES


def about_genes(header: Sequence[str], ids: int) -> dict[str, int]:
    """Column of a gene table -> place of the column that it is read from, beside the ids."""
    names = [plain(name) for name in header]
    found = {}
    for column, choices in (("gene_name", _NAMES), ("gene_type", _TYPES)):
        places = [names.index(c) for c in choices if c in names]
        # The name of a column may be there twice, the first time above the ids.
        places = [place for place in places if place != ids]
        if places:
            found[column] = places[0]
    if names[ids] == "name" and "description" in names:  # GCT, the format of GTEx
        found.setdefault("gene_name", names.index("description"))
    return found


def gene_facts(header: Sequence[str], ids: int, known: Collection[str]) -> set[int]:
    """Places of the columns beside the ids that describe genes, and are no samples.

    Args:
        header: names of the columns, with genes in rows.
        ids: place of the column that names the genes.
        known: patients of the cohort; a column with the name of one of them is a sample.
    """
    about = {*_GENE_IDS, *_NAMES, *_TYPES, *_GENE_FACTS}
    facts = {n for n, name in enumerate(header) if plain(name) in about and name not in known}
    index = {0} if header[0] in UNNAMED else set()
    return (facts | index) - {ids}


def is_no_gene(place: int, name: str) -> bool:
    """True for a column of a table with samples in rows that holds ids or facts of patients."""
    ids = (*PATIENT_COLUMNS, *SAMPLE_COLUMNS, *SLIDE_COLUMNS)
    return name in ids or plain(name) in _CLINICAL or (place == 0 and name in UNNAMED)


def sample_name(name: str, known: Collection[str]) -> str:
    """The id of a sample, of whose name tools have made a path or a name of R.

    ``/data/TCGA-00-0001-01A.sorted.bam`` and ``TCGA.00.0001.01A`` give ``TCGA-00-0001-01A``, and
    ``bam/P1.bam`` gives ``P1`` if the cohort has that patient, or has no patients yet. Any other
    name is returned as it is.

    Args:
        name: as the table has it.
        known: patients of the cohort.
    """
    if name in known or patient_of_sample(name) in known or SAMPLE_BARCODE.fullmatch(name):
        return name
    short = _without_endings(re.split(r"[/\\]", name)[-1])
    if dotted := _DOTTED.fullmatch(short):
        dashed = (dotted[1] + (dotted[2] or "")).replace(".", "-")
        if patient_of_sample(dashed) in known or dashed.startswith("TCGA-"):
            return dashed
    is_ours = short in known or patient_of_sample(short) in known
    is_id = is_ours or SAMPLE_BARCODE.fullmatch(short) or (not known and _FILE.search(name))
    return short if short and is_id else name


def _without_endings(name: str) -> str:
    while (short := _ENDING.sub("", name)) != name:
        name = short
    return name
