"""From files to a cohort folder: find, check, join and write."""
