"""RNA-seq expression: GDC downloads, tables in many layouts, AnnData; genes and their lists."""
