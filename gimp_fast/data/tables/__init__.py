"""Labels and splits from csv files: read in the layouts of other projects, or made."""
