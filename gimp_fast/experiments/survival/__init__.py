"""The table of survival, of one cohort or several."""
