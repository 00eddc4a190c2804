"""Joins slides, RNA, labels and splits into a cohort folder, and checks cohort folders."""
