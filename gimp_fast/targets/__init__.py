"""What a model is asked about a patient: its loss, its scores, and which epoch is best."""
